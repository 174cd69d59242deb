//! `id`: shows the public key of the data folder, or makes one.
//!
//! What it is not: the key file; see [`keyferry::data_dir`].

use keyferry::{
    control::{Event, Failure, FailureKind},
    data_dir::HomeError,
};

use super::{Executor, Need, Run, unwritable};
use crate::{
    args::IdArgs,
    drive::{Completion, status_of},
    launch::Folder,
};

impl Run<'_> {
    pub(super) async fn id(&mut self, args: &IdArgs) -> Result<Completion, Failure> {
        let node = match self.launcher.open(&self.home)? {
            Folder::Busy if args.new => {
                let what = format!("a keyferry is running on {}, with its key", self.home.display());
                return Err(Failure::new(FailureKind::Local, what).try_to("stop it first, or use another --home"));
            }
            Folder::Busy => match self.executor(Need::Folder).await? {
                Executor::Other(client) => status_of(&client, &self.cancel).await?.0.node,
                Executor::Own(node, _) => status_of(&*node, &self.cancel).await?.0.node,
            },
            // Before asking for a passphrase in vain.
            Folder::Open(home, _) | Folder::Encrypted(home) if args.new => {
                return Err(HomeError::IdentityExists { path: home.identity_path() }.into());
            }
            Folder::Empty(home) => {
                let passphrase = match args.new && args.passphrase {
                    true => {
                        let source = self.passphrase_source();
                        Some(self.off_thread(move || source.ask_new()).await?)
                    }
                    false => None,
                };
                self.new_key(home, passphrase).await?.1.public().to_string()
            }
            Folder::Open(_, secret) => secret.public().to_string(),
            Folder::Encrypted(home) => self.unlock(home).await?.1.public().to_string(),
        };
        let text = format!("{node}\n");
        self.screen.present(&text, &Event::Identity { node }).map_err(|error| unwritable(&error))?;
        Ok(Completion::Done)
    }
}
