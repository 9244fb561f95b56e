//! Chooses the files of a repository that a server needs.

use crate::{listing::ListedFile, lock::LOCK_FILE};

/// The index of safetensors in shards; its name's end.
const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
/// Heads of bge-m3, and weights of modules.
const HEADS: [&str; 2] = ["sparse_linear.pt", "colbert_linear.pt"];
/// Vocabularies, which nobody reads where there is a tokenizer.json.
const VOCABULARIES: [&str; 7] = [
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// Files that are wanted beside the model itself.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The whole repository.
    pub all: bool,
    /// ONNX models too, with their data.
    pub onnx: bool,
    /// Files by pattern, such as `openvino/*`; `*` stands for any text.
    pub include: Vec<String>,
}

impl Selection {
    /// Refuses a choice that is no model, or names what is not there.
    ///
    /// # Errors
    /// The problem, as what the repository has or lacks.
    pub(crate) fn check(
        &self,
        entries: &[ListedFile],
        chosen: &[&ListedFile],
    ) -> Result<(), String> {
        let is_idle =
            |pattern: &&String| !entries.iter().any(|entry| matches(pattern, &entry.path));
        if let Some(pattern) = self.include.iter().find(is_idle) {
            return Err(format!(
                "has no file of the pattern {pattern:?}, which --include names"
            ));
        }
        if self.all {
            return Ok(());
        }
        let has = |of: &dyn Fn(&str) -> bool| chosen.iter().any(|entry| of(&entry.path));
        // Models without an encoder have the second alone.
        if !has(&|path| matches!(path, "config.json" | "modules.json")) {
            return Err(
                "has no config.json: it is no model of transformers; --all fetches what is there"
                    .into(),
            );
        }
        let is_weights = |path: &str| {
            path.ends_with(".safetensors")
                || (path.starts_with("pytorch_model") && path.ends_with(".bin"))
                || path.ends_with(".onnx")
        };
        match has(&is_weights) {
            true => Ok(()),
            false => Err("has no weights in safetensors or of PyTorch: --onnx fetches ONNX models, --all everything".into()),
        }
    }

    /// The files that are needed, in the order of the listing.
    #[must_use]
    pub fn choose<'a>(&self, entries: &'a [ListedFile]) -> Vec<&'a ListedFile> {
        let has = |name: &str| entries.iter().any(|entry| entry.path == name);
        let has_safetensors = has("model.safetensors") || has(SAFETENSORS_INDEX);
        let has_tokenizer = has("tokenizer.json");
        let wanted = |entry: &&ListedFile| {
            let path = entry.path.as_str();
            // Its name is that of the record that is written here.
            if path == LOCK_FILE {
                return false;
            }
            self.all
                || self.include.iter().any(|pattern| matches(pattern, path))
                || (self.onnx && is_onnx(path))
                || is_needed(path, has_safetensors, has_tokenizer)
        };
        entries.iter().filter(wanted).collect()
    }
}

fn is_needed(path: &str, has_safetensors: bool, has_tokenizer: bool) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if !folder.is_empty() && !is_module(folder) {
        return false;
    }
    if VOCABULARIES.contains(&name) {
        return !has_tokenizer;
    }
    let is_safetensors = name.ends_with(".safetensors") || name == SAFETENSORS_INDEX;
    let is_torch = name.starts_with("pytorch_model")
        && (name.ends_with(".bin") || name.ends_with(".bin.index.json"));
    if folder.is_empty() {
        return match (is_safetensors, is_torch) {
            (true, _) => name.starts_with("model") && has_safetensors,
            (_, true) => !has_safetensors,
            _ => HEADS.contains(&name) || is_text(name),
        };
    }
    is_safetensors || is_torch || is_text(name)
}

/// Modules lie in folders such as `1_Pooling`, and those of a router in `2_Router/query_0_Dense`, or beside it.
fn is_module(folder: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit();
    let is_of_route = |name: &str| {
        let mut parts = name.rsplitn(3, '_');
        let (class, place, route) = (parts.next(), parts.next(), parts.next());
        class.is_some_and(|class| class.starts_with(|c: char| c.is_ascii_uppercase()))
            && place.is_some_and(|place| !place.is_empty() && place.chars().all(is_digit))
            && route.is_some()
    };
    match folder.split_once('/') {
        None => folder.starts_with(is_digit) || is_of_route(folder),
        Some((router, inner)) => {
            // Asym, the older router, numbers its modules.
            router.starts_with(is_digit) && (inner.starts_with(is_digit) || is_of_route(inner))
        }
    }
}

/// Configurations and templates; licenses and cards are for people.
fn is_text(name: &str) -> bool {
    [".json", ".txt", ".jinja"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// ONNX models and the tensors beside them, wherever they are; their own copies of the tokenizer are not needed.
fn is_onnx(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_model =
        name.ends_with(".onnx") || name.contains(".onnx_data") || name.ends_with(".onnx.data");
    is_model || (folder == "onnx" && name.starts_with("Constant_"))
}

/// True where a pattern, in which `*` stands for any text, is that of a path.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((start, rest)) => path.strip_prefix(start).is_some_and(|path| {
            let ends = path.char_indices().map(|(at, _)| at).chain([path.len()]);
            ends.into_iter().any(|at| matches(rest, &path[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Check;

    fn chosen(selection: &Selection, paths: &[&str]) -> Vec<String> {
        let entry = |path: &&str| ListedFile {
            path: (*path).into(),
            size: 1,
            check: Check::Sha256(String::new()),
        };
        let entries: Vec<_> = paths.iter().map(entry).collect();
        selection
            .choose(&entries)
            .into_iter()
            .map(|entry| entry.path.clone())
            .collect()
    }

    const BGE_M3: [&str; 21] = [
        ".gitattributes",
        "1_Pooling/config.json",
        "README.md",
        "colbert_linear.pt",
        "config.json",
        "config_sentence_transformers.json",
        "imgs/bm25.jpg",
        "long.jpg",
        "modules.json",
        "onnx/Constant_7_attr__value",
        "onnx/config.json",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/tokenizer.json",
        "pytorch_model.bin",
        "sentence_bert_config.json",
        "sentencepiece.bpe.model",
        "sparse_linear.pt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];

    #[test]
    fn of_bge_m3_the_server_s_files_are_taken() {
        let needed = [
            "1_Pooling/config.json",
            "colbert_linear.pt",
            "config.json",
            "config_sentence_transformers.json",
            "modules.json",
            "pytorch_model.bin",
            "sentence_bert_config.json",
            "sparse_linear.pt",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(chosen(&Selection::default(), &BGE_M3), needed);
        let with_onnx = Selection {
            onnx: true,
            ..Selection::default()
        };
        let more = chosen(&with_onnx, &BGE_M3);
        for path in [
            "onnx/Constant_7_attr__value",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
        ] {
            assert!(more.contains(&path.to_owned()));
        }
        assert_eq!(more.len(), needed.len() + 3);
        let all = Selection {
            all: true,
            ..Selection::default()
        };
        assert_eq!(chosen(&all, &BGE_M3), BGE_M3);
        let images = Selection {
            include: vec!["imgs/*".into()],
            ..Selection::default()
        };
        assert_eq!(chosen(&images, &BGE_M3).len(), needed.len() + 1);
    }

    #[test]
    fn safetensors_come_before_pickles_and_shards_by_their_index() {
        let shards = [
            "2_Dense/config.json",
            "2_Dense/model.safetensors",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "openvino/openvino_model.bin",
            "pytorch_model.bin",
            "rust_model.ot",
            "tf_model.h5",
            "vocab.txt",
        ];
        let got = chosen(&Selection::default(), &shards);
        assert_eq!(
            got,
            [
                "2_Dense/config.json",
                "2_Dense/model.safetensors",
                "config.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                // Without a tokenizer.json.
                "vocab.txt",
            ]
        );
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, path, expected) in [
            ("onnx/*.onnx", "onnx/model.onnx", true),
            ("*", "a/b", true),
            ("a*c*e", "abcde", true),
            ("a*c", "abcd", false),
            ("é*", "éa", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn modules_of_routers_are_needed() {
        for (folder, is_needed) in [
            ("1_Pooling", true),
            ("query_0_SparseStaticEmbedding", true),
            ("2_Router/query_0_Dense", true),
            ("2_Asym/140234_Dense", true),
            ("onnx", false),
            ("onnx/1_Pooling", false),
            ("checkpoint_100_old", false),
            ("_0_Dense_", false),
        ] {
            assert_eq!(is_module(folder), is_needed, "{folder}");
        }
    }
}
