//! `keyferry contacts`: the list is a file of the data folder that needs no node.
//!
//! What it is not: the file itself (`keyferry::base::data_dir`).

use keyferry::{
    control::{ContactInfo, Event, Failure},
    data_dir::{Contact, ContactsFile, Home},
};

use super::{Completion, Run, unwritable};
use crate::args::ContactsAction;

impl Run<'_> {
    pub(super) async fn contacts(&mut self, action: ContactsAction) -> Result<Completion, Failure> {
        let folder = self.home.clone();
        let events = tokio::task::spawn_blocking(move || carry_out(&folder, action)).await;
        for event in events.map_err(|error| Failure::local(error.to_string()))?? {
            self.screen.show(std::time::Instant::now(), &event).map_err(|error| unwritable(&error))?;
        }
        Ok(Completion::Done)
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
