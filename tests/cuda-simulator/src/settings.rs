//! The device that is played, as the variable `CUDA_SIMULATOR` says it: `name=value`, with blanks between.

use std::path::PathBuf;

/// Settings of the stand-in, with a card of the Ampere kind by default.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// `devices`: how many there are.
    pub(crate) devices: usize,
    /// `capability`: such as `9.0`.
    pub(crate) capability: (i32, i32),
    /// `multiprocessors`: of each device.
    pub(crate) multiprocessors: i32,
    /// `memory`: of each device, in MiB.
    pub(crate) memory: usize,
    /// `driver`: the version of CUDA, such as 12080.
    pub(crate) driver: i32,
    /// `init`: the error of the library's start.
    pub(crate) init: i32,
    /// `fault`: which launch, from 0, ends in an illegal access.
    pub(crate) fault: Option<u64>,
    /// `fault_file`: while there is such a file, the next launch removes it and ends in an illegal access.
    pub(crate) fault_file: Option<PathBuf>,
    /// `code=refused`: machine code is refused, as on a card that it was not made for.
    pub(crate) code_refused: bool,
    /// `mutant`: the name of a kernel, or the beginning of one, a colon, and what is done to it.
    pub(crate) mutant: Option<(String, Mutation)>,
}

/// A fault that is put into a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Without barriers.
    Barriers,
    /// Copies and products are waited for too late.
    Waits,
    /// Matrices are not transposed that should be, and the other way round.
    Transposition,
    /// Stores and loads are made by threads that should make none.
    Masks,
}

impl Settings {
    /// Reads the variable.
    ///
    /// # Errors
    /// The setting that is not understood.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut settings = Self {
            devices: 16,
            capability: (8, 0),
            multiprocessors: 132,
            memory: 1024 << 20,
            driver: 13_000,
            init: 0,
            fault: None,
            fault_file: None,
            code_refused: false,
            mutant: None,
        };
        for setting in text.split_whitespace() {
            settings
                .set(setting)
                .ok_or_else(|| format!("CUDA_SIMULATOR: {setting} is not known"))?;
        }
        Ok(settings)
    }

    fn set(&mut self, setting: &str) -> Option<()> {
        let (name, value) = setting.split_once('=')?;
        match name {
            "devices" => self.devices = value.parse().ok()?,
            "capability" => {
                let (major, minor) = value.split_once('.')?;
                self.capability = (major.parse().ok()?, minor.parse().ok()?);
            }
            "multiprocessors" => self.multiprocessors = value.parse().ok()?,
            "memory" => self.memory = value.parse::<usize>().ok()? << 20,
            "driver" => self.driver = value.parse().ok()?,
            "init" => self.init = value.parse().ok()?,
            "fault" => self.fault = Some(value.parse().ok()?),
            "fault_file" => self.fault_file = Some(value.into()),
            "code" => self.code_refused = value == "refused",
            "mutant" => {
                let (kernel, mutation) = value.split_once(':')?;
                let mutation = match mutation {
                    "barriers" => Mutation::Barriers,
                    "waits" => Mutation::Waits,
                    "transposition" => Mutation::Transposition,
                    "masks" => Mutation::Masks,
                    _ => return None,
                };
                self.mutant = Some((kernel.to_owned(), mutation));
            }
            _ => return None,
        }
        Some(())
    }
}

impl Mutation {
    /// A kernel's text with the fault in it.
    pub(crate) fn apply(self, source: &str) -> String {
        let line = |line: &str| match self {
            Self::Barriers if line.trim().starts_with("bar.sync") => String::new(),
            Self::Waits if line.contains(".wait_group") => {
                let end = line.trim_end().trim_end_matches(';');
                let waits = end.trim_end_matches(|c: char| c.is_ascii_digit());
                format!("{waits}8;")
            }
            Self::Masks if line.trim().starts_with("@%p") && line.contains(".global") => {
                line.trim().split_once(' ').unwrap_or_default().1.to_owned()
            }
            Self::Transposition if line.contains("ldmatrix") => match line.contains(".trans") {
                true => line.replace(".trans", ""),
                false => line.replace(".shared", ".trans.shared"),
            },
            Self::Transposition if line.contains("wgmma.mma_async") => {
                let line = line.trim_end().trim_end_matches(';');
                let (head, last) = line.rsplit_once(',').unwrap_or_default();
                let flipped = if last.trim() == "0" { "1" } else { "0" };
                format!("{head}, {flipped};")
            }
            _ => line.to_owned(),
        };
        let mutated: Vec<String> = source.lines().map(line).collect();
        mutated.join("\n")
    }
}
