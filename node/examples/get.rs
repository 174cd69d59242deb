//! Fetches what an address names, as `keyferry get ADDRESS -o FOLDER` does, and says by which path it came.
//!
//! ```sh
//! cargo run -p keyferry --example get -- DATA_FOLDER ADDRESS FOLDER
//! ```
//! `KEYFERRY_LISTEN=127.0.0.1:0` in front of it keeps it on this machine.

use anyhow::{Context, Result};
use futures::StreamExt;
use keyferry::{Address, Node, Update};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("which data folder?")?;
    let address: Address = args.next().context("which address?")?.parse()?;
    let target = args.next().context("which folder to put it in?")?;

    // A node that only fetches need not say where it is.
    let mut node = Node::builder(folder).announce(false);
    if let Ok(listen) = std::env::var("KEYFERRY_LISTEN") {
        node = node.listen([listen.parse()?]);
    }
    let node = node.spawn().await?;
    let mut getting = node.get(&address).to(target).updates();
    while let Some(update) = getting.next().await {
        match update? {
            Update::Connected(path) => eprintln!("connected to {}: {}", path.remote, path.description),
            Update::Progress(progress) => eprintln!("{} of {} bytes", progress.done_bytes, progress.total_bytes),
            Update::Done(fetched) => println!("{}", fetched.path.display()),
            _ => {}
        }
    }
    drop(getting);

    node.shutdown().await;
    Ok(())
}
