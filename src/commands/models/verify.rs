//! `embedgate models verify`: reads every byte.

use std::path::PathBuf;

use anyhow::anyhow;
use embedgate_hub::{LOCK_FILE, Lock, Verdict, verify};

use super::{Failure, is_unfinished, say};

/// Reads every byte of fetched models. Fails where one is wrong, or where a folder that was named is not known.
pub(super) fn check(folders: &[PathBuf], are_named: bool) -> Result<(), Failure> {
    let (mut n_wrong, mut n_unknown) = (0, 0);
    for folder in folders {
        let shown = folder.display();
        let lock = match Lock::read(folder) {
            _ if !folder.is_dir() => {
                say(&format!(
                    "{shown} is not there: `embedgate pull` fetches it"
                ))?;
                n_wrong += 1;
                continue;
            }
            _ if is_unfinished(folder) => continue,
            Ok(Some(lock)) => lock,
            Ok(None) => {
                say(&format!(
                    "{shown}: not fetched by pull: it has no {LOCK_FILE}"
                ))?;
                n_unknown += 1;
                continue;
            }
            Err(error) => {
                say(&error.to_string())?;
                n_wrong += 1;
                continue;
            }
        };
        let mut n_right = 0;
        for file in verify(folder, &lock) {
            let problem = match file {
                Ok((_, Verdict::Right)) => {
                    n_right += 1;
                    continue;
                }
                Ok((file, verdict)) => {
                    let path = folder.join(&file.path);
                    let path = path.display();
                    match verdict {
                        Verdict::Length(found) => {
                            format!("{path} has {found} bytes, not {}", file.size)
                        }
                        Verdict::Bytes => format!("{path} has other bytes than the record says"),
                        Verdict::Missing | Verdict::Right => format!("{path} is missing"),
                    }
                }
                Err(error) => error.to_string(),
            };
            n_wrong += 1;
            say(&problem)?;
        }
        let n = lock.files.len();
        say(&format!("{shown}: {n_right} of {n} files are right"))?;
    }
    match n_wrong {
        0 if n_unknown > 0 && are_named => Err(anyhow!(
            "of what has no record it is not known what is right: `embedgate models lock` writes one"
        )
        .into()),
        0 => Ok(()),
        _ => Err(
            anyhow!("not all is right: `embedgate pull` fetches what is wrong or missing").into(),
        ),
    }
}
