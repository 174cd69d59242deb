//! Shares for some: to all others they do not exist, by name, by hash and in the catalogue.

use anyhow::{Context, Result, bail, ensure};
use keyferry::node::api::{Event, Shared};
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER},
};

/// A node that serves two files: one that anybody may have, and one with an audience.
struct Scene {
    lab: Lab,
    sharer: keyferry_tests::process::Keyferry,
    open: Shared,
}

/// By what something is got.
#[derive(Clone, Copy)]
enum By {
    Name,
    NodeAndHash,
    Hash,
}

impl Scene {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        content::random_file(&lab.path("open"), 1, 1000)?;
        content::random_file(&lab.path("film"), 2, 300_000)?;
        let (sharer, open) = lab.share("sharer", &lab.path("open"))?;
        Ok(Self { lab, sharer, open })
    }

    fn id(&self, node: &str) -> Result<String> {
        match self.lab.run(node, ["id"])?.events.last() {
            Some(Event::Identity { node }) => Ok(node.clone()),
            other => bail!("{other:?}"),
        }
    }

    fn share_film(&self, to: &[&str]) -> Result<Shared> {
        let film = self.lab.path("film");
        let to = to.iter().flat_map(|whom| ["--to", whom]);
        let args = ["share", film.to_str().context("a path")?].into_iter().chain(to);
        let outcome = self.lab.run("sharer", args)?;
        let shared = |event: &Event| if let Event::Shared(shared) = event { Some(shared.clone()) } else { None };
        outcome.events.iter().find_map(shared).with_context(|| format!("{outcome:?}"))
    }

    /// The names that a node is shown.
    fn listed(&self, node: &str) -> Result<Vec<String>> {
        let (_, hints) = self.hints()?;
        let of = format!("keyferry:{}?{hints}", self.sharer_key()?);
        let outcome = self.lab.run(node, ["ls", &of])?;
        ensure!(outcome.status.success(), "{outcome:?}");
        let name = |event: &Event| if let Event::Entry(entry) = event { Some(entry.name.to_string()) } else { None };
        let mut names: Vec<_> = outcome.events.iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    fn hints(&self) -> Result<(String, String)> {
        let address = self.open.address_with_hints.to_string();
        let (address, hints) = address.split_once('?').context("a hint")?;
        Ok((address.to_owned(), hints.to_owned()))
    }

    fn sharer_key(&self) -> Result<String> {
        Ok(self.open.address.node().context("a node")?.to_string())
    }

    /// Whether a node gets it in this way; if not, why not, without the name or hash.
    fn gets(&self, node: &str, film: &Shared, by: By) -> Result<Result<(), String>> {
        let (key, (_, hints)) = (self.sharer_key()?, self.hints()?);
        let (name, hash) = (film.name.to_string(), film.hash.to_string());
        let target = match by {
            By::Name => format!("{key}/{name}"),
            By::NodeAndHash => format!("{key}/{hash}"),
            By::Hash => hash.clone(),
        };
        let out = tempfile::tempdir()?;
        let address = format!("keyferry:{target}?{hints}");
        let out = out.path().to_str().context("a path")?;
        let outcome = self.lab.run(node, ["get", &address, "--wait", "none", "-o", out])?;
        Ok(match outcome.fetched() {
            Ok(_) => Ok(()),
            Err(_) => Err(outcome.failure()?.message.replace(&name, "…").replace(&film.hash.short(), "…")),
        })
    }
}

#[test]
fn a_share_for_some_is_there_for_them_and_for_nobody_else() -> Result<()> {
    let scene = Scene::new()?;
    let bob = scene.id("bob")?;
    scene.lab.run("sharer", ["contacts", "add", &scene.id("ada")?, "Ada"])?;
    let nobody_has = Shared {
        name: "absent".parse()?,
        hash: keyferry_proto::hash::ContentHash::of(b"what nobody has"),
        ..scene.open.clone()
    };
    let absent = |by| scene.gets("stranger", &nobody_has, by);

    for (to, has_it) in
        [(&["contacts"][..], &["ada"][..]), (&["Ada"], &["ada"]), (&["contacts", &bob], &["ada", "bob"])]
    {
        let film = scene.share_film(to)?;
        for node in ["ada", "bob", "stranger"] {
            let got = scene.gets(node, &film, By::Name)?;
            let may = has_it.contains(&node);
            let expected = if may { Ok(()) } else { absent(By::Name)? };
            ensure!(got == expected, "{to:?} {node}: {got:?}");
            ensure!(scene.listed(node)?.contains(&"film".to_owned()) == may, "{to:?} {node}");
        }
    }
    let film = scene.share_film(&["contacts"])?;
    ensure!(scene.gets("ada", &film, By::NodeAndHash)?.is_ok());
    for by in [By::NodeAndHash, By::Hash] {
        let (got, expected) = (scene.gets("stranger", &film, by)?, absent(by)?);
        ensure!(got.is_err() && got == expected, "{got:?}, not {expected:?}");
    }
    scene.sharer.stop(SOON)?;
    Ok(())
}

#[test]
fn a_standing_share_changes_when_it_is_shared_again() -> Result<()> {
    let scene = Scene::new()?;
    scene.lab.run("sharer", ["contacts", "add", &scene.id("ada")?, "Ada"])?;
    ensure!(
        scene.listed("ada")? == ["open"] && scene.listed("stranger")?.is_empty(),
        "unlisted shares are for contacts"
    );
    let gets = |node: &str, film: &Shared| Ok::<_, anyhow::Error>(scene.gets(node, film, By::Name)?.is_ok());

    let film = scene.share_film(&["Ada"])?;
    ensure!(!gets("stranger", &film)?);
    // Not said anew, it stays with the same people.
    let film = scene.share_film(&[])?;
    ensure!(!gets("stranger", &film)?);
    let film = scene.share_film(&["everyone"])?;
    ensure!(gets("stranger", &film)? && scene.gets("stranger", &film, By::Hash)?.is_ok());
    let film = scene.share_film(&["contacts"])?;
    ensure!(!gets("stranger", &film)? && gets("ada", &film)?);
    scene.lab.run("sharer", ["contacts", "rm", "Ada"])?;
    ensure!(!gets("ada", &film)? && scene.listed("ada")?.is_empty());
    Ok(())
}

#[test]
fn what_is_offered_is_listed_with_who_was_sent_how_much_with_and_without_a_node() -> Result<()> {
    let scene = Scene::new()?;
    let ada = scene.id("ada")?;
    scene.lab.run("sharer", ["contacts", "add", &ada, "Ada"])?;
    let film = scene.share_film(&["Ada"])?;
    scene.lab.run("sharer", ["unshare", "open"])?;
    ensure!(scene.gets("ada", &film, By::Name)?.is_ok());
    let shares = || {
        let outcome = scene.lab.run("sharer", ["shares"])?;
        let [Event::Share(share), Event::Shares { count: 1 }] = &outcome.events[..] else { bail!("{outcome:?}") };
        ensure!(share.root.hash == film.hash && share.named_contacts[0].name == "Ada", "{share:?}");
        let [by] = &share.fetched[..] else { bail!("{share:?}") };
        ensure!(by.contact.as_deref() == Some("Ada") && by.node.as_ref() == Some(&ada), "{share:?}");
        Ok(by.bytes)
    };
    let running = shares()?;
    ensure!(running >= 300_000, "{running}");
    scene.sharer.stop(SOON)?;
    ensure!(shares()? == running, "kept over a restart");
    Ok(())
}

#[test]
fn an_unannounced_share_is_had_by_its_address_and_not_by_its_hash_alone() -> Result<()> {
    let scene = Scene::new()?;
    let film = scene.lab.path("film");
    let args = ["share", film.to_str().context("a path")?, "--unannounced", "--listed"];
    let mut sharing = scene.lab.start("sharer", args)?;
    let film = sharing.wait_shared(TRANSFER)?;
    sharing.finish(SOON)?;

    for (by, may) in [(By::Name, true), (By::NodeAndHash, true), (By::Hash, false)] {
        let got = scene.gets("stranger", &film, by)?;
        ensure!(got.is_ok() == may, "{got:?}");
    }
    ensure!(scene.listed("stranger")? == ["film"], "it is listed");
    Ok(())
}
