use std::path::PathBuf;

use futures::future::BoxFuture;
use keyferry::ContentHash;

use super::*;
use crate::screen::{Kept, Screen, Style};

/// Replays events, then ends as it is told to.
struct Replay {
    events: Vec<Event>,
    end: End,
}

#[derive(Clone)]
enum End {
    Done,
    Fail(Failure),
    WhenCancelled,
    Never,
}

impl Runner for Replay {
    fn run(
        &self,
        _command: Command,
        events: mpsc::Sender<Event>,
        cancel: CancellationToken,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            for event in &self.events {
                let _ = events.send(event.clone()).await;
            }
            let failure = match &self.end {
                End::Done => return Ok(()),
                End::Fail(failure) => failure.clone(),
                End::WhenCancelled => {
                    cancel.cancelled().await;
                    Failure::new(FailureKind::Interrupted, "interrupted")
                }
                End::Never => std::future::pending().await,
            };
            let _ = events.send(Event::Failed(failure.clone())).await;
            Err(failure)
        }
        .boxed()
    }
}

fn get() -> Command {
    let address = keyferry::Address::content(None, ContentHash::EMPTY);
    Command::get(address, PathBuf::from("/tmp"))
}

fn notices(count: usize) -> Vec<Event> {
    (0..count).map(|number| Event::Notice { message: format!("notice {number}") }).collect()
}

#[tokio::test]
async fn every_event_is_shown_even_when_there_are_more_than_the_queue_holds() {
    let (mut screen, _, err) = Screen::kept(Style::default());
    let replay = Replay { events: notices(3 * EVENT_QUEUE), end: End::Done };
    assert_eq!(drive(&replay, get(), &mut screen, &CancellationToken::new()).await.unwrap(), Completion::Done);
    assert_eq!(err.text().lines().count(), 3 * EVENT_QUEUE);
}

#[tokio::test]
async fn damage_found_is_an_outcome_of_its_own() {
    let (mut screen, out, _) = Screen::kept(Style::default());
    let damaged =
        Event::Damaged { hash: ContentHash::EMPTY, path: "/x".into(), problem: "differs from its hash".to_owned() };
    let replay = Replay { events: vec![damaged, Event::Verified { sound: 1, damaged: 1 }], end: End::Done };
    let outcome = drive(&replay, Command::StoreVerify, &mut screen, &CancellationToken::new()).await;
    assert_eq!(outcome.unwrap(), Completion::DamageFound);
    assert!(out.text().starts_with("damaged: /x: differs from its hash (af1349"), "{}", out.text());
}

#[tokio::test]
async fn interrupted_get_says_that_the_same_command_goes_on() {
    let (mut screen, _, err) = Screen::kept(Style::default());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let fetching = Event::Fetching { done_bytes: 40 << 20, total_bytes: 100 << 20, done_files: 0, total_files: 1 };
    let replay = Replay { events: vec![fetching], end: End::WhenCancelled };
    let failure = drive(&replay, get(), &mut screen, &cancel).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Interrupted);
    screen.failure(&failure).unwrap();
    assert_eq!(
        err.text(),
        "stopping; Ctrl-C again stops at once\n\
         error: interrupted; 40.0 MiB of 100 MiB is verified and kept\n  \
         try: run the same command again: it goes on where this one stopped\n"
    );
}

#[tokio::test]
async fn failure_of_the_command_is_the_failure_of_the_drive() {
    let (mut screen, out, _) = Screen::kept(Style { json: true, ..Style::default() });
    let failure = Failure::new(FailureKind::Network, "no provider");
    let replay = Replay { events: notices(1), end: End::Fail(failure) };
    let failure = drive(&replay, get(), &mut screen, &CancellationToken::new()).await.unwrap_err();
    assert_eq!((failure.kind, failure.advice.clone()), (FailureKind::Network, None));
    screen.failure(&failure).unwrap();
    assert_eq!(out.text().matches("no provider").count(), 1);
}

#[tokio::test]
async fn command_that_does_not_stop_is_left() {
    let (mut screen, _, _) = Screen::kept(Style::default());
    let cancel = CancellationToken::new();
    cancel.cancel();
    let replay = Replay { events: vec![], end: End::Never };
    let failure = follow(&replay, get(), &mut screen, &cancel, &mut None, Duration::from_millis(20)).await.unwrap_err();
    assert!(failure.message.contains("did not stop in time"));
}

#[tokio::test]
async fn reader_that_goes_away_stops_the_command() {
    let mut screen = Screen::new(
        Style::default(),
        crate::render::RenderContext { program: "keyferry".to_owned(), listed_node: None, connected: Vec::new() },
        crate::screen::Bars::new(Style::default()),
        Box::new(Gone),
        Box::new(Kept::default()),
    );
    let replay = Replay { events: vec![Event::Unshared { name: "x".parse().unwrap() }], end: End::WhenCancelled };
    let failure = drive(&replay, get(), &mut screen, &CancellationToken::new()).await.unwrap_err();
    assert!(failure.message.contains("standard output went away"), "{failure:?}");
}

struct Gone;

impl io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
