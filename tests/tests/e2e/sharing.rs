//! The main job: a file or folder shared under a key arrives bit for bit, by name, by hash, from one provider or two.

use anyhow::{Context, Result, ensure};
use keyferry::node::api::{Event, Status};
use keyferry_proto::hash::ContentFormat;
use keyferry_tests::{
    content,
    lab::{Lab, SOON, TRANSFER, eventually},
};

#[test]
fn a_file_arrives_by_key_and_name_alone() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("film.bin"), 1, 5_000_003)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("film.bin"))?;
    ensure!(
        shared.address.to_string().ends_with("/film.bin") && !shared.address.to_string().contains("via="),
        "{}",
        shared.address
    );
    ensure!(shared.size == 5_000_003 && shared.files == 1 && shared.format == ContentFormat::Blob, "{shared:?}");
    ensure!(blake3::Hash::from(shared.hash) == content::hash_file(&lab.path("film.bin"))?, "not the hash of b3sum");

    let outcome = lab.get("getter", &shared.address, &lab.folder("out")?)?;

    let fetched = outcome.fetched()?;
    content::same(&lab.path("film.bin"), &lab.path("out/film.bin"))?;
    ensure!(fetched.path == lab.path("out/film.bin"), "{:?}", fetched.path);
    ensure!(fetched.received_bytes >= 5_000_003 && fetched.resumed_bytes == 0, "{fetched:?}");
    ensure!(
        fetched.from.len() == 1
            && fetched.from[0].path.node.as_ref().is_some_and(|node| shared.address.to_string().contains(node)),
        "{:?}",
        fetched.from
    );
    ensure!(
        fetched.from[0].path.description.starts_with("direct (this machine") && fetched.first_byte.is_some(),
        "{fetched:?}"
    );
    Ok(())
}

#[test]
fn a_folder_arrives_by_key_and_name_alone() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    content::random_tree(&lab.folder("photos")?, 2, 700)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("photos"))?;
    ensure!(shared.files == 701 && shared.format == ContentFormat::Collection, "{shared:?}");

    let outcome = lab.get("getter", &shared.address, &lab.folder("out")?)?;

    ensure!(outcome.fetched()?.files == 701, "{:?}", outcome.fetched()?);
    content::same(&lab.path("photos"), &lab.path("out/photos"))
}

#[test]
fn an_address_with_hints_works_with_no_dht_at_all() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("a"), 3, 300_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("a"))?;
    ensure!(shared.address_with_hints.to_string().contains("?via="), "{}", shared.address_with_hints);

    lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.fetched()?;

    content::same(&lab.path("a"), &lab.path("out/a"))
}

#[test]
fn files_of_awkward_sizes_arrive() -> Result<()> {
    let lab = Lab::new()?;
    for (index, size) in [0_u64, 1, 65_535, 65_536, 65_537, 131_072, 1_048_577].into_iter().enumerate() {
        let name = format!("file-{size}");
        content::random_file(&lab.path(&name), 40 + index as u64, size)?;
        let (sharer, shared) = lab.share("sharer", &lab.path(&name))?;
        lab.get("getter", &shared.address_with_hints, &lab.folder("out")?)?.fetched()?;
        content::same(&lab.path(&name), &lab.path("out").join(&name))?;
        sharer.stop(SOON)?;
    }
    Ok(())
}

#[test]
fn a_second_provider_serves_by_hash_when_the_first_has_gone() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    content::random_tree(&lab.folder("tree")?, 5, 60)?;
    let (first, shared) = lab.share("first", &lab.path("tree"))?;
    let out = lab.folder("second-out")?;
    let get = ["get", &shared.address.to_string(), "--seed", "-o", out.to_str().context("a path")?];
    ensure!(lab.run("second", get)?.fetched()?.seeded, "it is to be seeded");
    let (_second, _) = lab.node("second")?;
    first.stop(SOON)?;

    // The second provider's provider record takes a moment to arrive in the DHT.
    let address = format!("keyferry:{}", shared.hash);
    let into = lab.folder("out")?;
    let fetched = eventually(TRANSFER, || Ok(lab.get("third", &address, &into)?.fetched()?.clone()))?;

    content::same(&lab.path("tree"), &fetched.path)
}

#[test]
fn what_is_not_offered_any_more_or_never_was_is_not_to_be_had_by_name_or_hash() -> Result<()> {
    let lab = Lab::new()?;
    content::random_file(&lab.path("film"), 9, 300_000)?;
    let (_sharer, shared) = lab.share("sharer", &lab.path("film"))?;
    let by_hash = |via: &str| format!("keyferry:{}?{via}", shared.hash);
    let hint = shared.address_with_hints.to_string().split_once('?').context("a hint")?.1.to_owned();
    ensure!(!lab.get("getter", by_hash(&hint), &lab.folder("out")?)?.fetched()?.seeded, "nobody has asked for that");
    let (_getter, status) = lab.node("getter")?;
    let node_and_hash = |status: &Status| {
        Ok::<_, anyhow::Error>(format!(
            "keyferry:{}/{}?via={}",
            status.node,
            shared.hash,
            status.hints.first().context("a hint")?
        ))
    };

    let refused = |address: &str| -> Result<()> {
        lab.run("third", ["get", address, "--wait", "none"])?.failure()?;
        Ok(())
    };
    refused(&node_and_hash(&status)?)?;
    refused(&by_hash(&format!("via={}", status.hints[0])))?;
    lab.run("sharer", ["unshare", "film"])?;
    refused(&shared.address_with_hints.to_string())?;
    refused(&by_hash(&hint))?;
    refused(&format!("keyferry:{}/{}?{hint}", shared.address.node().context("a node")?, shared.hash))?;
    Ok(())
}

#[test]
fn heavy_two_providers_serve_one_getter() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("big"), 6, 192 << 20)?;
    let (_first, shared) = lab.share("first", &lab.path("big"))?;
    let (_second, again) = lab.share("second", &lab.path("big"))?;
    ensure!(shared.hash == again.hash, "{} is not {}", shared.hash, again.hash);

    let address = format!("keyferry:{}", shared.hash);
    let mut tries = 0;
    let fetched = eventually(SOON, || {
        tries += 1;
        let into = lab.folder(format!("out-{tries}"))?;
        let fetched = lab.get(&format!("getter-{tries}"), &address, &into)?.fetched()?.clone();
        // What the second provider announces may still have been on its way.
        ensure!(fetched.from.len() == 2, "came from {:?}", fetched.from);
        Ok(fetched)
    })?;

    ensure!(fetched.received_bytes < (192 << 20) * 11 / 10, "received twice: {}", fetched.received_bytes);
    ensure!(content::hash_file(&fetched.path)? == blake3::Hash::from(shared.hash), "not what was shared");
    Ok(())
}

#[test]
fn the_catalogue_of_a_node_is_listed() -> Result<()> {
    let mut lab = Lab::new()?;
    let (_bootstrap, status) = lab.node("bootstrap")?;
    lab.bootstrap_from(&status)?;
    content::random_file(&lab.path("one"), 7, 1000)?;
    content::random_tree(&lab.folder("two")?, 8, 20)?;
    let one = lab.path("one").into_os_string();
    let two = lab.path("two").into_os_string();
    let mut sharer = lab.start("sharer", ["share".into(), "--listed".into(), one, two])?;
    let first = sharer.wait_shared(TRANSFER)?;
    let second = sharer.wait_shared(TRANSFER)?;
    let node = first.address.node().map(|node| node.to_string()).unwrap_or_default();

    let outcome = lab.run("reader", ["ls", &node])?;

    let entries: Vec<_> = outcome
        .events
        .iter()
        .filter_map(|event| if let Event::Entry(entry) = event { Some(entry) } else { None })
        .collect();
    ensure!(entries.len() == 2, "{outcome:#?}");
    for shared in [first, second] {
        let entry = entries.iter().find(|entry| entry.name == shared.name);
        ensure!(entry.is_some_and(|entry| entry.hash == shared.hash && entry.size == shared.size), "{entries:?}");
    }
    Ok(())
}
