//! Components that are let go of where memory is short, and read again one by one when something needs them.

use std::collections::BTreeSet;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use super::folder::ModelFolder;
use super::progress::Host;
use crate::error::{Error, Result};
use crate::weights::{Files, sha256};

/// How a component is read from its model's folder.
type Read<T> = Box<dyn Fn(&ModelFolder, &Device) -> Result<T> + Send + Sync>;

/// A component that comes and goes; what is computed with it meanwhile goes on.
pub struct Resident<T> {
    name: String,
    read: Read<T>,
    /// `None` once it was let go of.
    held: Mutex<Option<Arc<T>>>,
    /// Bytes of the files behind it.
    size: u64,
    /// The components that it was read from.
    folders: BTreeSet<String>,
    /// Hash of the configs behind it: the other components were fitted to what they say.
    configs: String,
}

/// A [`Resident`] of any type.
pub trait Reloadable {
    /// The folder that tells it.
    fn name(&self) -> &str;

    /// Bytes of the files behind it.
    fn size(&self) -> u64;

    /// The components that it was read from.
    fn folders(&self) -> &BTreeSet<String>;

    /// Whether it is there.
    fn is_held(&self) -> bool;

    /// Lets go of it: at once, or when whatever computes with it has ended.
    fn release(&self);

    /// Reads it again where it was let go of. Fails with `model-mismatch` where its configs are no longer those that the model
    /// was opened with.
    fn load(&self, files: &dyn Files, device: &Device) -> Result<()>;
}

impl<T> Resident<T> {
    /// Reads the component `name` for the first time.
    pub fn open(
        name: &str,
        files: &dyn Files,
        device: &Device,
        read: impl Fn(&ModelFolder, &Device) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let folder = ModelFolder::new(files)?;
        let first = read(&folder, device)?;
        Self::opened(name, &folder, Some(first), read)
    }

    /// The component `name`, which was read through `folder`, or of which only the configs were so far, and is `read` the next time.
    pub fn opened(
        name: &str,
        folder: &ModelFolder,
        first: Option<T>,
        read: impl Fn(&ModelFolder, &Device) -> Result<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            read: Box::new(read),
            held: Mutex::new(first.map(Arc::new)),
            size: folder.loaded_size()?,
            folders: folder.loaded(),
            configs: sha256(&folder.loaded_configs()?),
        })
    }

    /// The component, which `host` brings where it was let go of. Fails with `encoders-released` where it does not.
    pub async fn get(&self, host: &mut impl Host) -> Result<Arc<T>> {
        if let Some(held) = self.held().clone() {
            return Ok(held);
        }
        host.bring(&self.name).await?;
        self.held().clone().ok_or_else(|| released(&self.name))
    }

    /// What is held is whole whenever the lock is free, even if a thread ended while it held the lock.
    fn held(&self) -> MutexGuard<'_, Option<Arc<T>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reloadable for Resident<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn folders(&self) -> &BTreeSet<String> {
        &self.folders
    }

    fn is_held(&self) -> bool {
        self.held().is_some()
    }

    fn release(&self) {
        self.held().take();
    }

    fn load(&self, files: &dyn Files, device: &Device) -> Result<()> {
        let mut held = self.held();
        if held.is_some() {
            return Ok(());
        }
        let folder = ModelFolder::new(files)?;
        let again = (self.read)(&folder, device)?;
        if sha256(&folder.loaded_configs()?) != self.configs {
            return Err(Error::weights(
                "model-mismatch",
                format!("'{}' is not the component that the model was opened with", self.name),
                "open the model again",
            ));
        }
        *held = Some(Arc::new(again));
        Ok(())
    }
}

impl<T> Debug for Resident<T> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.debug_struct("Resident").field("name", &self.name).field("held", &self.is_held()).finish()
    }
}

/// A component was let go of, or never read, and nobody reads it.
pub fn released(name: &str) -> Error {
    Error::input(
        "encoders-released",
        format!("the model's component '{name}' is not in memory"),
        "read it again with load_component and the model's files, or draw with generate_with, which asks for it",
    )
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::progress::Watcher;
    use super::*;
    use crate::weights::MemoryFiles;

    fn files(config: &[u8]) -> MemoryFiles {
        MemoryFiles([("part/config.json".to_owned(), config.to_vec())].into())
    }

    fn part() -> Resident<Vec<u8>> {
        let read = |folder: &ModelFolder, _: &Device| folder.load("part", |c| c.read("config.json"));
        Resident::open("part", &files(b"{}"), &Device::flex(), read).unwrap()
    }

    #[test]
    fn what_was_let_go_of_is_brought_again_and_is_what_it_was() {
        let (part, device) = (part(), Device::flex());
        assert_eq!((part.size(), part.is_held()), (2, true));
        let quiet = async |_| ControlFlow::Continue(());
        let mut brought = Vec::new();
        let bring = async |name: &str| {
            brought.push(name.to_owned());
            part.load(&files(b"{}"), &device)
        };
        let mut host = Watcher { watch: quiet, bring, picture: 0 };
        let before = pollster::block_on(part.get(&mut host)).unwrap();
        part.release();
        assert!(!part.is_held() && *before == b"{}", "whoever has it keeps it");
        assert_eq!(*pollster::block_on(part.get(&mut host)).unwrap(), b"{}");
        assert_eq!(brought, ["part"]);

        part.release();
        let mut nobody = Watcher { watch: quiet, bring: async |_: &str| Ok(()), picture: 0 };
        assert_eq!(pollster::block_on(part.get(&mut nobody)).unwrap_err().code, "encoders-released");
        let other = part.load(&files(br#"{"a":1}"#), &device).unwrap_err();
        assert!(other.code == "model-mismatch" && other.message.contains("'part'") && !part.is_held());
    }
}
