//! How long a fetch waits for whom, on a clock that stands still.

use tokio::sync::mpsc;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn awaited(contact: Option<&str>) -> WaitedFor {
    WaitedFor { whom: "12D3".to_owned(), contact: contact.map(str::to_owned) }
}

fn missed() -> MissedTry {
    MissedTry { why: "no address answered".to_owned(), is_final: false, is_of_another: false, next: now() + 2 * SECOND }
}

/// A search and a fetch that only say how they stand.
struct Bench {
    board: SearchBoard,
    progress: watch::Sender<FetchProgress>,
    events: mpsc::Sender<Event>,
    told: mpsc::Receiver<Event>,
}

impl Bench {
    fn new() -> Self {
        let (events, told) = mpsc::channel(1024);
        Self { board: SearchBoard::default(), progress: watch::Sender::default(), events, told }
    }

    fn search(&self, wait: Wait, contact: Option<&str>) -> FetchWait {
        FetchWait::of_search(wait, awaited(contact), &self.board, &self.events)
    }

    fn fetch(&self, wait: Wait) -> FetchWait {
        FetchWait::of_fetch(wait, awaited(None), &self.board, self.progress.subscribe(), &self.events)
    }

    fn stuck(&self, is_stuck: bool, done_bytes: u64) {
        self.progress.send_modify(|progress| (progress.is_stuck, progress.done_bytes) = (is_stuck, done_bytes));
    }

    fn told(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }
}

/// How long it takes until the wait is over.
async fn took(mut wait: FetchWait) -> (Duration, WaitOver) {
    let begin = now();
    wait.until_over().await;
    (now() - begin, wait.over().unwrap())
}

/// The same while something happens.
async fn took_while(mut wait: FetchWait, happens: impl Future<Output = ()>) -> Duration {
    let begin = now();
    tokio::join!(wait.until_over(), happens);
    now() - begin
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_never_heard_of_is_looked_for_for_some_seconds() {
    for wait in [Wait::Known, Wait::None] {
        let bench = Bench::new();
        let (took, over) = took(bench.search(wait, None)).await;
        assert!((LOOK_FOR..LOOK_FOR + SECOND).contains(&took) && took < 9 * SECOND, "{took:?}");
        assert!(!over.is_known);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_offer_was_opened_and_a_contact_are_waited_for_for_ten_minutes() {
    let bench = Bench::new();
    let offer = async {
        time::sleep(3 * SECOND).await;
        bench.board.opened_offer(1);
    };
    let took_with_offer = took_while(bench.search(Wait::Known, None), offer).await;
    assert!((DEFAULT_WAIT..DEFAULT_WAIT + SECOND).contains(&took_with_offer), "{took_with_offer:?}");

    let (took, over) = took(Bench::new().search(Wait::Known, Some("Ada"))).await;
    assert!((DEFAULT_WAIT..DEFAULT_WAIT + SECOND).contains(&took) && over.is_known, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_given_holds_for_whom_ever() {
    let bench = Bench::new();
    bench.board.missed(missed());
    let (took, _) = took(bench.search(Wait::For(120 * SECOND), None)).await;
    assert!((120 * SECOND..121 * SECOND).contains(&took), "{took:?}");

    let mut forever = bench.search(Wait::Forever, None);
    assert!(time::timeout(1_000_000 * SECOND, forever.until_over()).await.is_err());
    let mut long = bench.search(Wait::For(Duration::MAX), None);
    assert!(time::timeout(1_000_000 * SECOND, long.until_over()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_the_first_try_that_leads_to_nobody_is_the_last() {
    let bench = Bench::new();
    let a_miss = async {
        bench.board.opened_offer(1);
        time::sleep(SECOND).await;
        bench.board.missed(missed());
    };
    let took = took_while(bench.search(Wait::None, Some("Ada")), a_miss).await;
    assert!((SECOND..2 * SECOND).contains(&took), "{took:?}");

    // In the middle of a fetch, too.
    let bench = Bench::new();
    let loss = async {
        bench.board.found();
        time::sleep(60 * SECOND).await;
        bench.stuck(true, 1);
        time::sleep(SECOND).await;
        bench.board.missed(missed());
    };
    let took = took_while(bench.fetch(Wait::None), loss).await;
    assert!((61 * SECOND..62 * SECOND).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_there_and_says_no_is_not_waited_for() {
    for wait in [Wait::Known, Wait::For(120 * SECOND), Wait::Forever] {
        let bench = Bench::new();
        bench.board.opened_offer(1);
        bench.board.missed(MissedTry { is_final: true, ..missed() });
        let (took, over) = took(bench.search(wait, None)).await;
        assert!(took.is_zero() && over.is_final);
    }
    // One that was reached before may only seem so: its network may just be changing.
    let bench = Bench::new();
    bench.board.found();
    let change = async {
        bench.stuck(true, 1);
        time::sleep(SECOND).await;
        bench.board.missed(MissedTry { is_final: true, ..missed() });
    };
    assert!(took_while(bench.fetch(Wait::Known), change).await >= DEFAULT_WAIT);
}

#[tokio::test(start_paused = true)]
async fn another_node_at_the_address_ends_the_search_for_one_that_is_not_known() {
    let elsewhere = || MissedTry { is_of_another: true, ..missed() };
    let bench = Bench::new();
    bench.board.missed(elsewhere());
    assert!(took(bench.search(Wait::Known, None)).await.0.is_zero());
    assert!(took(bench.search(Wait::Known, Some("Ada"))).await.0 >= DEFAULT_WAIT);
    assert!(took(bench.search(Wait::For(20 * SECOND), None)).await.0 >= 20 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_is_not_stuck_is_not_given_up() {
    let bench = Bench::new();
    let mut wait = bench.fetch(Wait::Known);
    assert!(time::timeout(2 * DEFAULT_WAIT, wait.until_over()).await.is_err());
    assert!(wait.over().is_none());
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_and_goes_without_giving_anything_is_not_waited_for_anew() {
    let bench = Bench::new();
    let comes_and_goes = async {
        for _ in 0..1000 {
            bench.stuck(true, 7);
            time::sleep(SECOND).await;
            bench.board.found();
            bench.stuck(false, 7);
            time::sleep(SECOND / 4).await;
        }
    };
    let took_in_vain = tokio::select! {
        took = took(bench.fetch(Wait::Known)) => took.0,
        () = comes_and_goes => panic!("it waits for ever"),
    };
    assert!((DEFAULT_WAIT..DEFAULT_WAIT + 2 * SECOND).contains(&took_in_vain), "{took_in_vain:?}");

    let bench = Bench::new();
    let gives_a_little = async {
        for round in 0..3 {
            bench.board.found();
            bench.stuck(true, round);
            time::sleep(DEFAULT_WAIT / 2).await;
            bench.stuck(false, round);
            time::sleep(SECOND).await;
        }
        bench.stuck(true, 3);
    };
    let took = took_while(bench.fetch(Wait::Known), gives_a_little).await;
    assert!(took > 2 * DEFAULT_WAIT, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn who_is_waited_for_and_how_long_is_told_when_it_begins_and_after_each_try() {
    let mut bench = Bench::new();
    let wait = FetchWait::of_fetch(
        Wait::For(100 * SECOND),
        awaited(Some("Ada")),
        &bench.board,
        bench.progress.subscribe(),
        &bench.events,
    );
    let loss = async {
        bench.board.found();
        bench.stuck(false, 5);
        time::sleep(SECOND).await;
        for _ in 0..3 {
            bench.stuck(true, 6);
            time::sleep(SECOND / 5).await;
        }
        time::sleep(SECOND).await;
        bench.board.missed(missed());
    };
    took_while(wait, loss).await;

    let told = bench.told();
    let [Event::Fetching { done_bytes: 5, .. }, Event::Fetching { done_bytes: 6, .. }, lost, tried] = &told[..] else {
        panic!("{told:#?}");
    };
    let (lost, tried) = (serde_json::to_value(lost).unwrap(), serde_json::to_value(tried).unwrap());
    assert_eq!((&lost["event"], &lost["for"], &lost["contact"]), (&"waiting".into(), &"12D3".into(), &"Ada".into()));
    assert_eq!((&lost["reason"], &lost["next_try_seconds"]), (&"the connection was lost".into(), &0.0.into()));
    assert_eq!((&tried["reason"], &tried["next_try_seconds"]), (&"no address answered".into(), &2.0.into()));
    let whole = |value: &serde_json::Value| value.as_f64().unwrap().round() as u64;
    assert_eq!(whole(&lost["left_seconds"]), 100);
    assert_eq!((whole(&tried["waited_seconds"]), whole(&tried["left_seconds"])), (2, 98));
    assert_eq!(lost["until"].as_u64().unwrap() - lost["since"].as_u64().unwrap(), 100);
}

#[test]
fn a_wait_is_the_same_after_it_was_text() {
    for wait in [Wait::Known, Wait::None, Wait::Forever, Wait::For(90 * SECOND), Wait::For(3 * 3600 * SECOND)] {
        let line = serde_json::to_string(&wait).unwrap();
        assert_eq!(serde_json::from_str::<Wait>(&line).unwrap(), wait, "{line}");
    }
    assert_eq!("1h 30m".parse(), Ok(Wait::For(5400 * SECOND)));
    assert!("10000000000000y".parse::<Wait>().is_err());
    assert!("soon".parse::<Wait>().unwrap_err().contains("90s, 10m or 2h"));
}
