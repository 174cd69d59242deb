//! The commands that the documentation shows, as somebody would type them.
//!
//! What it is not: a run of any of them.

use std::{fs, path::Path};

/// One command of the documentation.
#[derive(Debug)]
pub struct Documented {
    /// Where it stands: `docs/relay.md:8`.
    pub place: String,
    /// The words after the name of the program.
    pub arguments: Vec<String>,
}

/// The text of a file of the repository, such as `README.md`.
///
/// # Panics
/// Panics if it is not there.
pub fn document(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All commands of this program in blocks of code of the README and of `docs`. Blocks of TOML have keys, and no commands.
///
/// # Panics
/// Panics if a document cannot be read.
pub fn documented_commands(program: &str) -> Vec<Documented> {
    let mut names = vec!["README.md".to_owned()];
    let pages = fs::read_dir(root().join("docs")).expect("the folder of documents");
    let pages = pages.map(|page| page.expect("a document").file_name().to_string_lossy().into_owned());
    names.extend(pages.filter(|page| page.ends_with(".md")).map(|page| format!("docs/{page}")));
    names.sort_unstable();
    names.iter().flat_map(|name| commands_in(name, &document(name), program)).collect()
}

fn commands_in(name: &str, text: &str, program: &str) -> Vec<Documented> {
    // The language of the block of code that a line is in.
    let mut fence: Option<&str> = None;
    let mut commands = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(language) = line.strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(language) };
        } else if fence.map_or(line.starts_with("    "), |language| language != "toml") {
            let place = format!("{name}:{}", number + 1);
            commands.extend(arguments(line, program).map(|arguments| Documented { place, arguments }));
        }
    }
    commands
}

/// The words of a line behind the program, which may be called by its path, by cargo, and as root.
fn arguments(line: &str, program: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next().unwrap_or(line);
    let mut words = line.split_whitespace().skip_while(|word| matches!(*word, "$" | "sudo") || word.contains('='));
    let first = words.next()?;
    let is_program = first == program || first.ends_with(&format!("/{program}"));
    let by_cargo = first == "cargo" && line.contains(&format!("-p {program} --"));
    match (is_program, by_cargo) {
        (true, _) => Some(words.map(str::to_owned).collect()),
        (_, true) => Some(words.skip_while(|word| *word != "--").skip(1).map(str::to_owned).collect()),
        _ => None,
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the workspace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_however_they_are_called() {
        let text = "keyferry prose\n```sh\n$ keyferry get X -o Y   # and so on\nsudo target/release/keyferry ls\n```\n\n    \
                    cargo run --release -p keyferry -- id --new\n    KEYFERRY_HOME=a keyferry status\n    cargo build -p keyferry\n\
                    ```toml\nkeyferry = [\"share\"]\n```\n";
        let found: Vec<_> =
            commands_in("a.md", text, "keyferry").into_iter().map(|it| it.arguments.join(" ")).collect();
        assert_eq!(found, ["get X -o Y", "ls", "id --new", "status"]);
    }
}
