//! `keyferry contacts`: the list is a file of the data folder that needs no node.
//!
//! What it is not: the file itself (`crate::home`).

use super::{Outcome, Run, unwritable};
use crate::{
    cli::args::ContactsAction,
    engine::api::{ContactInfo, Event, Failure},
    home::{Contact, ContactsError, ContactsFile, Home},
};

impl Run<'_> {
    pub(super) async fn contacts(&mut self, action: ContactsAction) -> Result<Outcome, Failure> {
        let folder = self.home.clone();
        let events = tokio::task::spawn_blocking(move || carry_out(&folder, action)).await;
        for event in events.map_err(|error| Failure::local(error.to_string()))?? {
            self.screen.show(std::time::Instant::now(), &event).map_err(|error| unwritable(&error))?;
        }
        Ok(Outcome::Done)
    }
}

fn carry_out(folder: &std::path::Path, action: ContactsAction) -> Result<Vec<Event>, Failure> {
    Home::prepare(folder)?;
    let file = ContactsFile::of(folder);
    Ok(match action {
        ContactsAction::Add { node, name } => {
            vec![Event::ContactAdded(info(&file.add(node, name.as_deref())?))]
        }
        ContactsAction::Rm { what } => vec![Event::ContactRemoved(info(&file.remove(&what)?))],
        ContactsAction::Ls => {
            let list = file.read()?;
            let contacts = list.iter().map(|contact| Event::Contact(info(contact)));
            contacts.chain([Event::Contacts { count: list.iter().count() as u64 }]).collect()
        }
    })
}

fn info(contact: &Contact) -> ContactInfo {
    ContactInfo { node: contact.node.to_string(), name: contact.name.to_string() }
}

impl From<ContactsError> for Failure {
    fn from(error: ContactsError) -> Self {
        match error {
            ContactsError::Name(_)
            | ContactsError::NameTaken { .. }
            | ContactsError::NoSuchContact { .. }
            | ContactsError::TooMany => Self::usage(error.to_string()),
            ContactsError::Line { .. } | ContactsError::File { .. } | ContactsError::Io { .. } => {
                Self::local(error.to_string())
            }
        }
    }
}
