//! Two nodes that speak a protocol of their own, over whatever path Keyferry finds between them: one says a line in upper case to
//! whoever connects, the other asks it to.
//!
//! ```sh
//! cargo run -p keyferry --example own_protocol -- listen DATA_FOLDER
//! cargo run -p keyferry --example own_protocol -- connect DATA_FOLDER NODE LINE
//! ```
//! `KEYFERRY_LISTEN=127.0.0.1:0` in front of it keeps it on this machine.

use anyhow::{Context, Result, bail};
use keyferry::{Node, NodeAddress, ProtocolName};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let what = args.next().context("listen or connect?")?;
    let mut node = Node::builder(args.next().context("which data folder?")?);
    if let Ok(listen) = std::env::var("KEYFERRY_LISTEN") {
        node = node.listen([listen.parse()?]);
    }
    let protocol: ProtocolName = "upper-case.example/1".parse()?;

    match &*what {
        "listen" => {
            let node = node.spawn().await?;
            let mut listener = node.listen(&protocol)?;
            println!("{}", node.address());
            while let Some(mut connection) = listener.accept().await {
                eprintln!("{} came: {}", connection.peer(), connection.path().description);
                tokio::spawn(async move {
                    let mut line = String::new();
                    // Whoever connects is a stranger: how much is read has a limit.
                    let mut asked = BufReader::new(&mut connection).take(1024);
                    if asked.read_line(&mut line).await.is_ok() {
                        let _ = connection.write_all(line.to_uppercase().as_bytes()).await;
                        let _ = connection.shutdown().await;
                    }
                });
            }
        }
        "connect" => {
            let node = node.announce(false).spawn().await?;
            let other: NodeAddress = args.next().context("which node?")?.parse()?;
            let mut connection = node.connect(other, &protocol).await?;
            connection.write_all(format!("{}\n", args.next().context("which line?")?).as_bytes()).await?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).await?;
            print!("{answer}");
            drop(connection);
            node.shutdown().await;
        }
        other => bail!("listen or connect, not {other}"),
    }
    Ok(())
}
