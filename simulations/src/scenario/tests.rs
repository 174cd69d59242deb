//! Whole files: what holds together, and what each mistake is told as.

mod any_text;
mod documented;
mod mistakes;
mod shipped_ones;

use std::path::Path;

use super::{
    file::{include::Shelf, problem::Refused},
    load::{Loaded, load_text},
};

/// What files of a test include.
pub(super) struct Others(pub(super) &'static [(&'static str, &'static str)]);

impl Shelf for Others {
    fn text(&self, path: &Path) -> Result<String, String> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
    }
}

pub(super) fn read(text: &str) -> Result<Loaded, Refused> {
    read_with(text, &Others(&[]))
}

pub(super) fn read_with(text: &str, others: &Others) -> Result<Loaded, Refused> {
    load_text(Path::new("test.toml"), text.to_owned(), others)
}

/// A scenario that holds together, to add to.
pub(super) const WHOLE: &str = r#"question = "?"

[[content]]
name = "film"
size = "1 MiB"

[[site]]
name = "alice"
preset = "home"

[[site]]
name = "bob"
preset = "home"

[[node]]
name = "sharer"
site = "alice"
keyferry = ["share", "{content.film}"]

[[node]]
name = "getter"
site = "bob"

[[step]]
name = "shared"
wait-for = { process = "sharer", event = "shared", capture = { address = "address" } }

[[step]]
name = "fetch"
run = { on = "getter", keyferry = ["get", "{address}", "-o", "out/"] }

[[expect]]
exit = { process = "getter.get" }
"#;

mod whole {
    use std::time::Duration;

    use super::*;
    use crate::{
        network::{Ipv4, Mapping},
        scenario::model::{Action, Between, ExpectationKind, NodeId, ProcessId, Rendezvous, SiteId, StepId},
    };

    fn run(text: &str) -> crate::scenario::model::Scenario {
        let mut loaded = read(text).unwrap_or_else(|refused| panic!("{refused}"));
        assert_eq!(loaded.runs.len(), 1);
        loaded.runs.remove(0)
    }

    #[test]
    fn the_least_gets_all_defaults() {
        let run = run(WHOLE);
        assert_eq!((run.name.as_str(), run.seed, run.limit), ("test", 1, Duration::from_secs(120)));
        assert_eq!(run.rendezvous, Rendezvous { nodes: 3, relaying: false });
        assert_eq!(run.links.len(), 1);
        assert_eq!(run.links[0].way.delay, Duration::from_millis(20));
        assert_eq!(run.processes.len(), 2);
        assert_eq!(run.processes[1].name, "getter.get");
        assert_eq!(run.steps[1].after, [StepId(0)]);
        let Action::Run { wait, .. } = &run.steps[1].action else { panic!("{:?}", run.steps[1]) };
        assert_eq!(*wait, Some(Duration::from_secs(120)));
        assert_eq!(run.expectations[0].kind, ExpectationKind::Exit { processes: vec![ProcessId(1)], code: 0 });
        assert_eq!(
            (run.expectations[0].place.line, run.expectations[0].words.as_str()),
            (32, "getter.get ends with 0")
        );
    }

    #[test]
    fn nobody_is_met_where_no_keyferry_runs() {
        let run =
            run("question = \"?\"\n[[site]]\nname = \"a\"\npreset = \"home\"\n[[node]]\nname = \"n\"\nsite = \"a\"\n\
             [[step]]\nrun = { on = \"n\", command = [\"true\"] }\n[[expect]]\nexit = { process = \"n.true\" }\n");
        assert_eq!(run.rendezvous.nodes, 0);
    }

    #[test]
    fn counts_spread_nodes_over_sites_and_name_groups() {
        let text = WHOLE.replace("name = \"bob\"\n", "name = \"bob\"\ncount = 2\n");
        let text = text.replace("name = \"getter\"\nsite", "name = \"getter\"\ncount = 3\nsite");
        let run = run(&text);
        let sites: Vec<&str> = run.nodes[1..].iter().map(|node| run.sites[node.site.0].name.as_str()).collect();
        assert_eq!(sites, ["bob-1", "bob-2", "bob-1"]);
        let Action::Run { processes, .. } = &run.steps[1].action else { panic!("{:?}", run.steps[1]) };
        let names: Vec<&str> = processes.iter().map(|process| run.processes[process.0].name.as_str()).collect();
        assert_eq!(names, ["getter-1.get", "getter-2.get", "getter-3.get"]);
        assert_eq!(run.expectations[0].kind, ExpectationKind::Exit { processes: processes.clone(), code: 0 });
    }

    #[test]
    fn values_make_a_run_for_each_choice() {
        let text = WHOLE.replace("1 MiB", "{size}").replace("preset = \"home\"", "preset = \"{preset}\"")
            + "[matrix]\nsize = [\"1 KiB\", 2048, \"3 KiB\"]\n\
               [[case]]\nname = \"one\"\npreset = \"home\"\n[[case]]\nname = \"two\"\npreset = \"cgnat\"\n";
        let loaded = read(&text).unwrap();
        assert_eq!(loaded.runs.len(), 6);
        let shown = |run: usize| loaded.runs[run].values.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>();
        assert_eq!((shown(0), shown(4)), (vec!["one", "1 KiB"], vec!["two", "2048"]));
        assert_eq!(loaded.runs[5].sites[0].properties.ipv4, Ipv4::CarrierNat);
    }

    #[test]
    fn links_are_laid_over_wider_ones() {
        let run = run(&(WHOLE.to_owned()
            + "[[link]]\nlatency = \"5ms\"\n[[link]]\nbetween = [\"alice\", \"everybody\"]\nrate = \"8 Mbit/s\"\n\
               [[link]]\nbetween = [\"bob\", \"alice\"]\nloss = \"2 %\"\nburst = 4\n\
               [[link]]\nbetween = [\"bob\", \"everybody\"]\njitter = \"3ms\"\n"));
        let (alice, bob) = (SiteId(0), SiteId(1));
        let at = |between| run.links.iter().rfind(|link| link.between == between).unwrap().way;
        assert_eq!(at(Between::Of(alice)).rate.unwrap().bytes_per_second, 1_000_000);
        assert_eq!((at(Between::Of(alice)).loss, at(Between::Any).rate), (0.0, None));
        let both = at(Between::Two(alice, bob));
        assert_eq!((both.loss, both.burst, both.jitter), (0.02, Some(4.0), Duration::from_millis(3)));
        assert_eq!((both.delay, both.rate.unwrap().queue), (Duration::from_millis(5), Duration::from_millis(100)));
        assert!(matches!(run.links.last().unwrap().between, Between::Two(..)), "wider ones come first");
    }

    #[test]
    fn a_preset_can_be_overridden_and_changed_later() {
        let run = run(&(WHOLE.replace("preset = \"home\"", "preset = \"home\"\nmtu = 1400")
            + "[[step]]\nset = { site = \"bob\", mapping = \"address-and-port-dependent\" }\n\
               [[step]]\nset = { site = \"bob\", mtu = 1300 }\n"));
        assert_eq!(
            (run.sites[1].properties.mtu, run.sites[1].properties.mapping),
            (1400, Mapping::EndpointIndependent)
        );
        let Action::SetSite { properties, .. } = &run.steps[3].action else { panic!("{:?}", run.steps[3]) };
        assert_eq!((properties.mtu, properties.mapping), (1300, Mapping::AddressAndPortDependent));
    }

    #[test]
    fn steps_are_sorted_by_what_they_wait_for() {
        let run = run(&(WHOLE.replace("name = \"shared\"\n", "name = \"shared\"\nafter = \"cut\"\n")
            + "[[step]]\nname = \"cut\"\nafter = []\ncut = [\"alice\", \"everybody\"]\n"));
        let names: Vec<&str> = run.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["cut", "shared", "fetch"]);
        assert_eq!(run.steps[1].after, [StepId(0)]);
        assert!(run.steps[0].after.is_empty());
    }

    #[test]
    fn what_is_included_comes_before_and_is_laid_under() {
        let others = Others(&[
            (
                "base.toml",
                "include = \"sites.toml\"\nseed = 7\nduration = \"5s\"\n[[node]]\nname = \"first\"\nsite = \"alice\"\n",
            ),
            ("sites.toml", "seed = 8\n[[site]]\nname = \"carol\"\npreset = \"phone\"\n"),
        ]);
        let loaded = read_with(&format!("include = [\"base.toml\"]\nduration = \"9s\"\n{WHOLE}"), &others).unwrap();
        let run = &loaded.runs[0];
        assert_eq!((run.seed, run.limit), (7, Duration::from_secs(9)));
        assert_eq!((run.sites[0].name.as_str(), run.nodes[0].name.as_str()), ("carol", "first"));
        assert_eq!(loaded.sources.len(), 3);
    }

    #[test]
    fn templates_lie_under_what_a_table_says_itself() {
        let text = WHOLE.replace(
            "keyferry = [\"share\", \"{content.film}\"]\n",
            "template = \"t\"\nenvironment = { B = \"own\" }\n",
        ) + "[template.t]\nkeyferry = [\"share\", \"{content.film}\"]\nenvironment = { A = \"a\", B = \"b\" }\nclock = \"-1h\"\n";
        let run = run(&text);
        let main = &run.processes[run.nodes[0].main.unwrap().0];
        let mut names: Vec<&str> = main.command.environment.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!((names, run.nodes[0].clock.seconds), (vec!["A", "B"], -3600));
    }

    #[test]
    fn a_keyferry_at_server_443_listens_there_unless_told_otherwise() {
        let text = WHOLE.replacen("preset = \"home\"", "preset = \"server-443\"", 1);
        let listens = |text: &str| {
            let run = run(text);
            let environment = &run.processes[0].command.environment;
            environment.iter().filter(|(name, _)| name == "KEYFERRY_LISTEN").count()
        };
        assert_eq!((listens(&text), listens(WHOLE)), (1, 0));
        let own = text.replacen("keyferry = ", "environment = { KEYFERRY_LISTEN = \"1\" }\nkeyferry = ", 1);
        assert_eq!(listens(&own), 1);
    }

    #[test]
    fn a_step_may_wait_for_what_a_step_beside_it_runs() {
        let run = run(&(WHOLE.to_owned()
            + "[[step]]\nname = \"beside\"\nafter = \"shared\"\n\
               wait-for = { process = \"getter.get\", event = \"fetching\", where = { done_bytes = { at-least = 5 } } }\n\
               [[step]]\nkill = { process = \"getter.get\", signal = \"SIGSTOP\" }\n\
               [[step]]\nreplug = { node = \"getter\" }\n"));
        let Action::Kill { signal, .. } = run.steps[3].action else { panic!("{:?}", run.steps[3]) };
        assert_eq!(signal, 19);
        assert_eq!(run.steps[4].action, Action::Replug { node: NodeId(1), to: None, gone: Duration::ZERO });
    }
}
