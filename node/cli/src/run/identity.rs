//! `id`: shows the public key of the data folder, or makes one.
//!
//! What it is not: the key file; see `home`.

use keyferry_proto::identity::NodeSecret;

use super::{Executor, Need, Run, unwritable};
use keyferry::{
    base::data_dir::{Home, HomeError},
    node::api::{Event, Failure, FailureKind},
};

use crate::{
    args::IdArgs,
    drive::{Outcome, status_of},
    launch::FolderState,
    passphrase,
};

impl Run<'_> {
    pub(super) async fn id(&mut self, args: &IdArgs) -> Result<Outcome, Failure> {
        let node = match self.launcher.look(&self.home)? {
            FolderState::Busy => {
                if args.new {
                    let what = format!("a keyferry is running on {}, with its key", self.home.display());
                    return Err(Failure::new(FailureKind::Local, what).try_to("stop it first, or use another --home"));
                }
                match self.executor(Need::Folder).await? {
                    Executor::Other(client) => status_of(&client, &self.cancel).await?.node,
                    Executor::Own(node) => status_of(&*node, &self.cancel).await?.node,
                }
            }
            _ if args.new => {
                // Before anything is asked for: it would be asked for in vain.
                self.at_home(|home| match home.identity_path() {
                    path if path.exists() => Err(HomeError::IdentityExists { path }),
                    _ => Ok(()),
                })
                .await?;
                let passphrase = if args.passphrase { Some(self.ask(passphrase::ask_new).await?) } else { None };
                self.key(move |home| home.new_identity(passphrase.as_deref())).await?
            }
            FolderState::PassphraseNeeded => {
                let passphrase = self.ask(passphrase::ask).await?;
                self.key(move |home| home.unlock(&passphrase)).await?
            }
            FolderState::Free => self.key(Home::identity).await?,
        };
        let text = format!("{node}\n");
        self.screen.present(&text, &Event::Identity { node }).map_err(|error| unwritable(&error))?;
        Ok(Outcome::Done)
    }

    async fn key(
        &self,
        get: impl FnOnce(&Home) -> Result<NodeSecret, HomeError> + Send + 'static,
    ) -> Result<String, Failure> {
        self.at_home(|home| get(home).map(|secret| secret.public().to_string())).await
    }

    /// Opens the data folder for a moment. On a thread of its own: unlocking a key takes its time.
    async fn at_home<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Home) -> Result<T, HomeError> + Send + 'static,
    ) -> Result<T, Failure> {
        let path = self.home.clone();
        let worked = tokio::task::spawn_blocking(move || work(&Home::open(&path)?)).await;
        Ok(worked.map_err(|error| Failure::new(FailureKind::Local, error.to_string()))??)
    }
}
