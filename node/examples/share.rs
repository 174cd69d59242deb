//! Shares a file or a folder, as `keyferry share PATH` does, and serves it until Ctrl-C.
//!
//! ```sh
//! cargo run -p keyferry --example share -- DATA_FOLDER PATH
//! ```
//! `KEYFERRY_LISTEN=127.0.0.1:0` in front of it keeps it on this machine.

use anyhow::{Context, Result};
use futures::StreamExt;
use keyferry::{Node, Update};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().context("which data folder?")?;
    let path = args.next().context("which file or folder?")?;

    let mut node = Node::builder(folder);
    if let Ok(listen) = std::env::var("KEYFERRY_LISTEN") {
        node = node.listen([listen.parse()?]);
    }
    let node = node.spawn().await?;
    let mut sharing = node.share(path).updates();
    while let Some(update) = sharing.next().await {
        match update? {
            Update::Progress(progress) => eprintln!("{} of {} bytes", progress.done_bytes, progress.total_bytes),
            // The address with hints works also where there is no DHT.
            Update::Done(shared) => println!("{}", shared.address_with_hints),
            _ => {}
        }
    }

    tokio::signal::ctrl_c().await?;
    node.shutdown().await;
    Ok(())
}
