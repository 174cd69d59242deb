//! What is wrong with a file, and how that is told: each kind of mistake with its place, its sentence and its mend.

use std::fmt::Write as _;

use super::{Others, WHOLE, read, read_with};
use crate::scenario::file::problem::MAX_PROBLEMS;

/// The first complaint about a file: `LINE:COLUMN: what; advice`.
fn complaint(text: &str) -> String {
    let refused = read(text).expect_err("it does not hold together").to_string();
    let first = refused.lines().next().unwrap_or_default();
    first.strip_prefix("test.toml:").unwrap_or(first).to_owned()
}

/// The same for what is added to a file that holds together; lines are counted from what is added.
#[track_caller]
fn assert_added(added: &str, line: usize, told: &str) {
    assert_mistake(&format!("{WHOLE}{added}"), WHOLE.lines().count() + line, told);
}

/// The same for a file in which something is replaced.
#[track_caller]
fn assert_replaced(old: &str, new: &str, told: &str) {
    assert!(WHOLE.contains(old), "{old}");
    let line = WHOLE[..WHOLE.find(old).unwrap_or_default()].matches('\n').count() + 1;
    // What is added below is what is wrong.
    let below = new.strip_prefix(old).is_some_and(|added| added.starts_with('\n'));
    assert_mistake(&WHOLE.replacen(old, new, 1), line + usize::from(below), told);
}

#[track_caller]
fn assert_mistake(text: &str, line: usize, told: &str) {
    let complaint = complaint(text);
    let (place, what) = complaint.split_once(": ").unwrap_or_default();
    assert_eq!(what, told);
    assert_eq!(place.split(':').next(), Some(line.to_string().as_str()), "{complaint}");
}

#[test]
fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let refused = read(&WHOLE.replace("preset = \"home\"", "preset = \"hoem\"")).unwrap_err().to_string();
    let shown =
        "test.toml:9:10: there is no preset `hoem`; did you mean `home`?\n 9 | preset = \"hoem\"\n   |          ^^^^^^";
    assert!(refused.starts_with(shown), "{refused}");
    assert_eq!(refused.matches("no preset").count(), 2, "all are told: {refused}");
}

#[test]
fn no_more_than_the_most_are_told() {
    let mut text = WHOLE.to_owned();
    for number in 0..100 {
        let _ = writeln!(text, "[[expect]]\nexit = {{ process = \"nobody-{number}\" }}");
    }
    let refused = read(&text).unwrap_err();
    assert_eq!((refused.complaints.len(), refused.more), (MAX_PROBLEMS, 100 - MAX_PROBLEMS));
}

#[test]
fn toml_has_to_be_toml() {
    let told = |text: &str| read(text).expect_err("it does not hold together").to_string();
    assert!(told("question = \"?\"\n[[site]\n").starts_with("test.toml:2:"), "{}", told("question = \"?\"\n[[site]\n"));
    assert!(told("seed = \n").contains("this is not TOML"));
    assert!(told("question = 1\nquestion = 2\n").contains("duplicate key"));
    assert!(told(&format!("{} = 1", vec!["a"; 100_000].join("."))).contains("too many"));
    assert!(told(&format!("seed = {}", "[".repeat(100_000))).contains("this is not TOML"));
    assert!(told("seed = 99999999999999999999").contains("this number is too large"));
    assert!(told("seed = 2020-01-01").contains("no key takes a date"));
}

#[test]
fn a_scenario_has_all_of_its_parts() {
    assert!(complaint("").contains("a scenario lacks `question`; write question = \"…?\""));
    assert!(read("question = \"?\"").unwrap_err().to_string().contains("there is no [[site]]"));
    assert_replaced("question = \"?\"\n", "", "a scenario lacks `question`; write question = \"…?\"");
}

#[test]
fn keys_are_known() {
    assert_replaced("name = \"alice\"", "nmae = \"alice\"", "[[site]] has no key `nmae`; did you mean `name`?");
    assert_added("[[stpe]]\n", 1, "a scenario has no key `stpe`; did you mean `step`?");
    assert_added("[[link]]\nlatnecy = \"1ms\"\n", 2, "[[link]] has no key `latnecy`; did you mean `latency`?");
    let told = "run has no key `o`; did you mean `on`?";
    assert_added("[[step]]\nrun = { o = \"getter\", on = \"getter\", command = [\"true\"] }\n", 2, told);
    let told = "a condition has no key `at-leest`; did you mean `at-least`?";
    let wait =
        "wait-for = { process = \"sharer\", event = \"fetching\", where = { x = { at-most = 1, at-leest = 1 } } }";
    assert_added(&format!("[[step]]\n{wait}\n"), 2, told);
}

#[test]
fn names_are_known() {
    assert_replaced("site = \"bob\"", "site = \"bop\"", "there is no site called `bop`; did you mean `bob`?");
    assert_replaced("on = \"getter\"", "on = \"geter\"", "there is no node called `geter`; did you mean `getter`?");
    assert_replaced(
        "process = \"sharer\"",
        "process = \"sharre\"",
        "there is no process called `sharre`; did you mean `sharer`?",
    );
    assert_replaced("{content.film}", "{content.flim}", "there is no content called `flim`; did you mean `film`?");
    assert_added(
        "[[step]]\nafter = \"fetsch\"\npause = \"1s\"\n",
        2,
        "there is no step called `fetsch`; did you mean `fetch`?",
    );
    assert_added("[[step]]\nstop = \"nobody\"\n", 2, "there is no node called `nobody`; there are `sharer`, `getter`");
    assert_replaced("{address}", "{adress}", "nothing is called `{adress}`; did you mean `address`?");
    assert_replaced("\"share\", ", "\"shrae\", ", "keyferry has no command `shrae`; did you mean `share`?");
    assert_replaced(
        "event = \"shared\"",
        "event = \"shard\"",
        "keyferry tells no event `shard`; did you mean `shared`?",
    );
    let told = "there is no template called `x`; there are none";
    assert_replaced("site = \"bob\"", "template = \"x\"\nsite = \"bob\"", told);
}

#[test]
fn names_are_told_apart() {
    let told = "`alice` is the name of a site already; take another name";
    assert_replaced("name = \"bob\"", "name = \"alice\"", told);
    assert_replaced(
        "name = \"getter\"",
        "name = \"sharer\"",
        "`sharer` is the name of a node already; take another name",
    );
    assert_replaced(
        "name = \"fetch\"",
        "name = \"shared\"",
        "`shared` is the name of a step already; take another name",
    );
    assert_added(
        "[[step]]\nrun = { on = \"getter\", keyferry = [\"get\", \"x\"] }\n",
        2,
        "two commands are called `getter.get`; give one a name of its own: as = \"…\"",
    );
    assert_replaced(
        "name = \"bob\"",
        "name = \"everybody\"",
        "`everybody` has a meaning of its own; take another name",
    );
    assert!(complaint(&WHOLE.replace("name = \"bob\"", "name = \"b b\"")).contains("`b b` cannot be a name"));
    let capture =
        "[[step]]\nwait-for = { process = \"sharer\", event = \"shared\", capture = { address = \"hash\" } }\n";
    assert_added(capture, 2, "`address` is captured twice; take another name");
}

#[test]
fn values_have_bounds() {
    let of_link = |key: &str, told: &str| assert_added(&format!("[[link]]\n{key}\n"), 2, told);
    of_link(
        "latency = \"-5ms\"",
        "`latency`: `-5ms` is below zero, and no time is; write a time with its unit, such as \"40ms\", \"5s\" or \"2m\"",
    );
    of_link("latency = \"6s\"", "`latency`: `6s` is out of bounds; it can be from 0s to 5s");
    of_link("loss = \"60 %\"", "`loss`: 60 % is out of bounds; it can be from 0 to 0.5");
    of_link("loss = true", "`loss`: this is true or false; write a number");
    of_link("rate = \"20 MB\"", "`rate`: `20 MB` is no rate; write a rate such as \"500 kbit/s\" or \"20 Mbit/s\"");
    of_link("burst = 5", "`burst` needs a loss; write loss = \"1 %\", or take it out");
    of_link("queue = \"5ms\"", "`queue` needs a rate; write rate = \"20 Mbit/s\", or take it out");
    assert_replaced(
        "question = \"?\"",
        "duration = \"3h\"\nquestion = \"?\"",
        "`duration`: `3h` is out of bounds; it can be from 1s to 2h",
    );
    assert_replaced(
        "size = \"1 MiB\"",
        "size = \"1 PiB\"",
        "`size`: `1 PiB` is no size; write a size such as \"10 KiB\", \"300 MiB\" or 1000000",
    );
    assert_replaced(
        "size = \"1 MiB\"",
        "files = 0\nsize-each = 1",
        "`files`: 0 is out of bounds; it can be from 1 to 100000",
    );
    assert_added("[[step]]\npause = \"3m\"\n", 2, "`pause`: `3m` is out of bounds; it can be from 0s to 2m");
    assert_added("[rendezvous]\nnodes = 101\n", 2, "`nodes`: 101 is out of bounds; it can be from 0 to 100");
    assert_added(
        "[[step]]\nkill = { process = \"sharer\", signal = \"KIL\" }\n",
        2,
        "there is no signal `KIL`; did you mean `KILL`?",
    );
    assert_replaced(
        "site = \"bob\"",
        "site = \"bob\"\ncount = 9999",
        "`count`: 9999 is out of bounds; it can be from 1 to 256",
    );
    assert_replaced(
        "site = \"bob\"",
        "site = \"bob\"\nclock = \"2h\"",
        "`clock`: `2h` does not say whether it is ahead; write \"+2h\" or \"-90s\"",
    );
}

#[test]
fn lines_of_mistakes_in_replaced_text_are_those_of_the_value() {
    let told = complaint(&WHOLE.replacen("site = \"bob\"", "site = \"bob\"\ndisk = \"1 B\"", 1));
    assert_eq!(told, "23:8: `disk`: `1 B` is out of bounds; it can be from 1 MiB to 16 GiB");
}

#[test]
fn properties_of_a_site_go_together() {
    let of_site = |key: &str, told: &str| {
        let text = WHOLE.replacen("preset = \"home\"", &format!("preset = \"home\"\n{key}"), 1);
        assert_mistake(&text, 10, told);
    };
    of_site(
        "hairpin = true",
        "the lab's NATs hairpin by mappings that others may come in by; write filtering = \"endpoint-independent\" or \"address-dependent\"",
    );
    of_site(
        "refusal = \"prohibited\"",
        "only a firewall of IPv6 refuses with `prohibited`; write ipv6 = \"firewalled\"",
    );
    of_site(
        "ipv6 = \"public\"",
        "a site is public or behind a router, not both; a public host is the end of its line: both kinds are public, or one is none",
    );
    of_site("ipv4 = \"none\"", "hosts there have no address at all; give the site ipv4 or ipv6");
    of_site(
        "network = \"127.0.0.0\"",
        "`127.0.0.0` is no network that a site can have; write the first address of a /24, such as 100.128.7.0",
    );
    of_site("mapping = \"endpoint\"", "`mapping` cannot be `endpoint`; did you mean `endpoint-independent`?");
    of_site("outward-ports = [0]", "`outward-ports`: 0 is out of bounds; it can be from 1 to 65535");
    of_site("mtu = 100", "`mtu`: 100 is out of bounds; it can be from 576 to 1500");
    let carrier = WHOLE.replacen("preset = \"home\"", "preset = \"cgnat\"\nupnp = true", 1);
    assert_mistake(
        &carrier,
        10,
        "`upnp` needs a home router with a NAT of its own; write ipv4 = \"nat\", or take it out",
    );
    let public = WHOLE.replacen("preset = \"home\"", "preset = \"server\"\noutward-ports = [443]", 1);
    assert_mistake(&public, 10, "`outward-ports` needs a NAT or a firewall; write ipv4 = \"nat\", or take it out");
}

#[test]
fn a_public_site_has_one_host() {
    let two =
        WHOLE.replacen("preset = \"home\"", "preset = \"server\"", 1).replace("site = \"bob\"", "site = \"alice\"");
    let told = "`alice` is public and has 2 hosts; a public site has one; `count` on the site and the node makes several of both";
    assert_mistake(&two, 20, told);
    let none = format!("{WHOLE}[[site]]\nname = \"empty\"\npreset = \"server\"\n");
    assert!(complaint(&none).contains("`empty` is public and has 0 hosts"));
    let moved = format!("{none}[[step]]\nreplug = {{ node = \"getter\", to = \"empty\" }}\n");
    assert!(read(&moved).is_ok(), "somebody moves there");
}

#[test]
fn a_step_does_one_thing() {
    assert_added(
        "[[step]]\nname = \"x\"\n",
        1,
        "this step does nothing; write what: run, kill, wait-for, …, or pause = \"3s\"",
    );
    assert_added(
        "[[step]]\nstop = \"sharer\"\nstart = \"sharer\"\n",
        3,
        "this step does two things: `stop` and `start`; make two steps of it",
    );
    assert_added("[[step]]\nrun = { command = [\"true\"] }\n", 2, "run lacks `on`; write on = \"NODE\"");
    assert_added("[[step]]\nrun = { on = \"getter\" }\n", 2, "run lacks `keyferry`; write keyferry = [\"get\", …]");
    assert_added(
        "[[step]]\nrun = { on = \"getter\", command = \"true\" }\n",
        2,
        "a command is a list of texts, and this is a text; write [\"PROGRAM\", \"ARGUMENT\", …]; no shell takes it apart",
    );
    assert_added(
        "[[step]]\ncut = [\"alice\"]\n",
        2,
        "this has two sides; write [\"SITE\", \"SITE\"] or [\"SITE\", \"everybody\"]",
    );
    assert_added(
        "[[step]]\nset = { site = \"bob\" }\n",
        2,
        "this changes nothing; write what: mtu = 1280, loss = \"1 %\", …",
    );
    assert_added("[[step]]\nset = { site = \"bob\", loss = 0.1 }\n", 2, "a site has no `loss`; make two steps of it");
    assert_added(
        "[[step]]\nset = { site = \"bob\", ipv4 = \"none\" }\n",
        2,
        "set has no key `ipv4`; there are `burst`, `filtering`, `forgets-after`, `hairpin`, `jitter`, `latency`, `link`, `loss`, `mapping`, `mtu`, `outward-ports`, `picks-up`, `queue`, `rate`, `refusal`, `reorder`, …",
    );
}

#[test]
fn a_step_finds_what_it_needs() {
    assert_added(
        "[[step]]\nstop = \"getter\"\n",
        2,
        "`getter` runs nothing of its own; give the node `keyferry` or `command`, or kill what a step runs",
    );
    assert_added("[[step]]\nstart = \"sharer\"\n", 1, "`sharer` runs already; stop or kill it in a step before");
    assert_added(
        "[[step]]\nfill-disk = { node = \"getter\", leave = \"1 MiB\" }\n",
        2,
        "`getter` has no disk of its own to fill; write disk = \"64 MiB\" in its [[node]]",
    );
    assert_added(
        "[[step]]\nkill = { process = \"getter.get\" }\n",
        1,
        "`getter.get` has ended before this step begins; write wait = false where it runs, or let both steps come after another one",
    );
    assert_added(
        "[[step]]\nrun = { on = \"getter\", keyferry = [\"node\"] }\n",
        1,
        "`getter.node` never ends by itself; write wait = false, and wait for its event `shared` in the next step",
    );
    let server = WHOLE.replacen("preset = \"home\"", "preset = \"server\"", 1);
    let router = format!("{server}[[step]]\nrestart-router = {{ site = \"alice\" }}\n");
    assert!(complaint(&router).contains("`alice` has no router; name a site with a NAT or a firewall"));
}

#[test]
fn steps_do_not_wait_for_each_other() {
    let text = WHOLE.replace("name = \"shared\"\n", "name = \"shared\"\nafter = \"fetch\"\n");
    assert_mistake(
        &text,
        24,
        "steps wait for each other: `shared` after `fetch` after `shared`; take one `after` out; a step without one comes after the step before it in the file",
    );
    let text = WHOLE.replace("name = \"shared\"\n", "name = \"shared\"\nafter = \"shared\"\n");
    assert!(complaint(&text).contains("`shared` after `shared`"));
    let early = "[[step]]\nname = \"early\"\nafter = []\nwait-for = { process = \"getter.late\", event = \"fetched\" }\n\
                 [[step]]\nrun = { on = \"getter\", keyferry = [\"get\", \"x\"], as = \"late\" }\n";
    assert_added(
        early,
        1,
        "`getter.late` is started by `step 4`, after this step; write after = \"step 4\", or move the step down",
    );
}

#[test]
fn what_is_captured_is_known_when_it_is_used() {
    let text = WHOLE.replace("name = \"fetch\"\n", "name = \"fetch\"\nafter = []\n");
    assert_mistake(
        &text,
        31,
        "`{address}` may not be known yet when this step begins; write after = \"shared\", or move the step down",
    );
    let text = WHOLE.replace("site = \"bob\"\n", "site = \"bob\"\nkeyferry = [\"get\", \"{address}\"]\n");
    assert!(complaint(&text).contains("`{address}` is not known yet when the node starts"));
    let group = WHOLE.replace("site = \"alice\"", "site = \"alice\"\ncount = 2");
    assert!(complaint(&group).contains("`capture` takes from one process, and these are 2"));
}

#[test]
fn an_expectation_can_be_judged() {
    let expect = |what: &str, told: &str| assert_added(&format!("[[expect]]\n{what}\n"), 2, told);
    expect(
        "exit = { process = \"sharer\" }",
        "this cannot be judged: `sharer` never ends by itself; stop or kill it in a step, or expect something else",
    );
    expect("exit = { process = \"getter\" }", "there is no process called `getter`; did you mean `getter.get`?");
    expect(
        "path = { process = \"sharer\", is = \"direct\" }",
        "this cannot be judged: `keyferry share` tells nothing of it; name what runs keyferry get, ping, ls",
    );
    expect("stall = { process = \"getter.get\", at-most = \"1s\" }", "stall lacks `after`; write after = \"STEP\"");
    expect(
        "traffic = { node = \"getter\", to = \"1m\", at-most = 5 }",
        "this cannot be judged: the steps may be over before 60s; add a step with at = \"60s\"",
    );
    expect(
        "no-packet = { from = \"alice\", to = \"alice\" }",
        "packets within a site do not pass its line; name two different sites",
    );
    expect(
        "at-least-ok = { process = \"getter.get\", at-least = 2 }",
        "these are only 1 processes; expect no more of them",
    );
    expect("memory = { process = \"getter.get\" }", "memory lacks `at-most`; write at-most = \"1 MiB\"");
    expect("path = { process = \"getter.get\", is = \"relayed\" }", "`is` cannot be `relayed`; did you mean `relay`?");
    let foreign = "[[step]]\nrun = { on = \"getter\", command = [\"true\"] }\n[[expect]]\n";
    for judged in [
        "event = { process = \"getter.true\", event = \"failed\" }",
        "stall = { process = \"getter.true\", after = \"fetch\", at-most = \"1s\" }",
        "received-beyond = { process = \"getter.true\", at-most = 1 }",
    ] {
        let told = complaint(&format!("{WHOLE}{foreign}{judged}\n"));
        assert!(told.contains("this cannot be judged: `getter.true` is no keyferry and tells no events"), "{told}");
    }
    assert_added(
        "[[expect]]\n",
        1,
        "this expects nothing; write exit = { process = \"…\" }, event = { … }, same = { … }, …",
    );
}

#[test]
fn values_to_repeat_over_fit_each_other() {
    let cases = "[[case]]\nname = \"a\"\nx = 1\n[[case]]\nname = \"b\"\n";
    assert_added(cases, 4, "`x` is in one [[case]] and not in another; give all cases the same keys");
    assert_added("[matrix]\nx = \"1\"\n", 2, "`x` is no list of values; write x = [\"…\", \"…\"]");
    assert_added("[matrix]\nseed = [1]\n", 2, "{seed} has a meaning of its own; give the value another name");
    let many = format!("[matrix]\nx = {0:?}\ny = {0:?}\n", vec![1; 40]);
    assert_added(&many, 3, "this makes more than 1000 runs; take values out, or make two files");
    let text = WHOLE.replace("1 MiB", "{size}") + "[matrix]\nsize = [\"1 MiB\", \"2 ZiB\"]\n";
    let refused = read(&text).unwrap_err().to_string();
    assert!(refused.contains("`2 ZiB` is no size") && refused.ends_with("this is with size = 2 ZiB"), "{refused}");
    assert_replaced(
        "size = \"1 MiB\"",
        "size = \"{size}\"",
        "`size`: no value is called `size`; [matrix] and [[case]] give values; captures, contents and nodes have no place here",
    );
}

#[test]
fn all_runs_of_a_file_have_a_bound_together() {
    let large = WHOLE.replace("preset = \"home\"", "preset = \"home\"\ncount = 128")
        + &format!("[matrix]\nx = {:?}\n[[link]]\nbetween = [\"alice-1\", \"bob\"]\nloss = 0.1\n", vec![1; 1_000]);
    assert!(
        complaint(&large).contains("all runs together are too large; make `count`s smaller"),
        "{}",
        complaint(&large)
    );
}

#[test]
fn files_include_each_other_once() {
    let circle = Others(&[("a.toml", "include = \"b.toml\""), ("b.toml", "include = \"./a.toml\"")]);
    let refused = read_with(&format!("include = \"a.toml\"\n{WHOLE}"), &circle).unwrap_err().to_string();
    assert!(refused.starts_with("b.toml:1:11: `a.toml` includes itself; take one"), "{refused}");
    let refused = read(&format!("include = \"x/none.toml\"\n{WHOLE}")).unwrap_err().to_string();
    assert!(refused.starts_with("test.toml:1:11: cannot read `x/none.toml`: no such file; paths are"), "{refused}");
    let wide = Others(&[
        ("a.toml", "include = [\"b.toml\", \"b.toml\", \"b.toml\", \"b.toml\"]"),
        ("b.toml", "include = [\"c.toml\", \"c.toml\", \"c.toml\"]"),
        ("c.toml", "include = [\"d.toml\", \"d.toml\", \"d.toml\"]"),
        ("d.toml", "seed = 1"),
    ]);
    let refused = read_with(&format!("include = \"a.toml\"\n{WHOLE}"), &wide).unwrap_err().to_string();
    assert!(refused.contains("too many files include each other"), "{refused}");
    let wrong = Others(&[("a.toml", "# a\nsede = 1\n")]);
    let refused = read_with(&format!("include = \"a.toml\"\n{WHOLE}"), &wrong).unwrap_err().to_string();
    assert!(refused.starts_with("a.toml:2:1: a scenario has no key `sede`; did you mean `seed`?"), "{refused}");
}
