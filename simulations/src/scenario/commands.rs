//! `check`, `new` and `scenarios`: what can be done with scenarios without running them.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::json;

use super::{
    file::problem::Refused,
    load::{Loaded, load},
    shipped,
};

/// What `new` writes.
const STARTER: &str = include_str!("starter.toml");

/// What `check` takes.
#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// Files, or names of scenarios that come with the program.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
}

/// What `new` takes.
#[derive(Debug, Args)]
pub(crate) struct NewOptions {
    /// The file to write; it must not be there yet.
    file: PathBuf,
}

/// Says of each file whether it holds together. Fails with all that is wrong, after having looked at all files.
pub(crate) fn check(options: &CheckOptions, json: bool) -> Result<()> {
    let mut refused: Vec<Refused> = Vec::new();
    for file in &options.files {
        match load(file) {
            Ok(loaded) if json => println!("{}", counts(file, &loaded)),
            Ok(loaded) => println!("{file}: holds together: {}", counted(&loaded)),
            Err(error) => refused.push(error),
        }
    }
    match Refused::all(refused) {
        None => Ok(()),
        Some(refused) => Err(refused.into()),
    }
}

/// Lists what comes with the program.
pub(crate) fn list(json: bool) -> Result<()> {
    let longest = shipped::scenarios().map(|shipped| shipped.name.len()).max().unwrap_or_default();
    let mut listed = Vec::new();
    for shipped in shipped::scenarios() {
        let question = load(shipped.name).with_context(|| format!("the scenario {}", shipped.name))?.question;
        listed.push((shipped.name, question));
    }
    if json {
        let listed = listed.iter().map(|(name, question)| json!({ "name": name, "question": question }));
        println!("{}", json!({ "scenarios": listed.collect::<Vec<_>>() }));
    } else {
        for (name, question) in listed {
            println!("{name:longest$}  {question}");
        }
    }
    Ok(())
}

/// Writes a scenario to begin with.
pub(crate) fn new(options: &NewOptions) -> Result<()> {
    let file = &options.file;
    let mut opened = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; name another file", file.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", file.display())),
    };
    opened.write_all(STARTER.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    println!("Wrote {0}. Change it, then: keyferry-sim check {0}", file.display());
    Ok(())
}

fn counted(loaded: &Loaded) -> String {
    let Some(run) = loaded.runs.first() else { return "no runs".to_owned() };
    let counts = [
        (run.sites.len(), "site", "sites"),
        (run.nodes.len(), "node", "nodes"),
        (run.steps.len(), "step", "steps"),
        (run.expectations.len(), "expectation", "expectations"),
        (loaded.runs.len(), "run", "runs"),
    ];
    let words = counts.map(|(count, one, more)| format!("{count} {}", if count == 1 { one } else { more }));
    words.join(", ")
}

fn counts(file: &str, loaded: &Loaded) -> serde_json::Value {
    let run = loaded.runs.first();
    let count = |of: fn(&super::model::Scenario) -> usize| run.map_or(0, of);
    json!({
        "file": file,
        "question": loaded.question,
        "sites": count(|run| run.sites.len()),
        "nodes": count(|run| run.nodes.len()),
        "steps": count(|run| run.steps.len()),
        "expectations": count(|run| run.expectations.len()),
        "runs": loaded.runs.len(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_new_writes_holds_together_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        let options = NewOptions { file: file.clone() };
        new(&options).unwrap();
        let options_of_check = |file: &std::path::Path| CheckOptions { files: vec![file.display().to_string()] };
        check(&options_of_check(&file), false).unwrap();

        fs::write(&file, "mine").unwrap();
        let refused = new(&options).unwrap_err().to_string();
        assert!(refused.contains("mine.toml is there already; name another file"), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert!(check(&options_of_check(&file), false).unwrap_err().is::<Refused>());
        let nowhere = NewOptions { file: folder.path().join("none/mine.toml") };
        assert!(new(&nowhere).unwrap_err().to_string().contains("cannot write"));
    }

    #[test]
    fn mistakes_of_all_files_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<String> = ["a.toml", "b.toml"]
            .iter()
            .map(|name| {
                let file = folder.path().join(name);
                fs::write(&file, "sede = 1\n").unwrap();
                file.display().to_string()
            })
            .collect();
        let refused = check(&CheckOptions { files }, false).unwrap_err().to_string();
        assert!(refused.contains("a.toml:1:1: ") && refused.contains("b.toml:1:1: "), "{refused}");
    }

    #[test]
    fn a_name_that_is_not_known_has_one_that_is_like_it() {
        let refused = load("two-home").unwrap_err().to_string();
        assert!(
            refused.contains("there is no scenario \"two-home\", and no such file; did you mean `two-homes`?"),
            "{refused}"
        );
        assert!(load("transfer").is_err(), "a part of others is no scenario");
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long.toml");
        fs::write(&long, vec![b'#'; (1 << 20) + 1]).unwrap();
        let refused = load(&long.display().to_string()).unwrap_err().to_string();
        assert!(refused.contains("it is longer than 1048576 bytes"), "{refused}");
    }
}
