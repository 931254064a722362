//! The labels of an engine against what vLLM's own parser reads in its arguments.

use serde::Deserialize;

use crate::question::plan::{EngineKey, Quantization, ranks};

/// What vLLM's parser reads where a report has a label; null where nothing is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ParsedLabels {
    model: Option<String>,
    tensor_parallel_size: Option<u32>,
    quantization: Option<String>,
    /// The next three are absent where vLLM has no such argument.
    #[serde(default)]
    pipeline_parallel_size: Option<u32>,
    #[serde(default)]
    prefill_context_parallel_size: Option<u32>,
    #[serde(default)]
    data_parallel_size: Option<u32>,
}

impl ParsedLabels {
    /// The first label or parallel size of `key` that says something else, or that a plan refuses; `model` is what the harness has given to vLLM for the label's.
    pub fn contradiction(&self, key: &EngineKey, model: &str) -> Option<String> {
        let differs = |label: &str, is: &str, read: &str| {
            // The key takes these alone.
            let is_key = label != "quantization" || matches!(read, "none" | "fp8" | "fp4");
            let given =
                if is_key { format!("as the key `{label}`") } else { format!("as `--{label} {read}` in `args`") };
            format!(
                "`{label}` is {is} here, and vLLM reads {read} in `args`, in which the file of `--config` counts too; \
                 give it {given} and take it out there"
            )
        };
        if let Some(read) = self.model.as_deref().filter(|read| *read != model) {
            return Some(differs("model", model, read));
        }
        if let Some(read) = self.tensor_parallel_size.filter(|read| *read != key.tensor_parallel_size) {
            return Some(differs("tensor_parallel_size", &key.tensor_parallel_size.to_string(), &read.to_string()));
        }
        let others = [self.pipeline_parallel_size, self.prefill_context_parallel_size];
        let read = key.other_sizes().into_iter().zip(others);
        if let Some((flag, is, read)) =
            read.filter_map(|((flag, is), read)| Some((flag, is, read?))).find(|(_, is, read)| is != read)
        {
            return Some(format!(
                "`{flag}` is {is} here, and vLLM reads {read} in the file of `--config`; give it in `args`, and take it out there"
            ));
        }
        if let Some(read) = self.data_parallel_size.filter(|read| *read > 1) {
            return Some(format!(
                "data_parallel_size {read} in the file of `--config` is refused: {}",
                ranks::NO_REPLICAS
            ));
        }
        let read = self.quantization.as_deref().filter(|_| key.quantization == Quantization::None)?;
        Some(differs("quantization", Quantization::None.as_str(), read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::device::DeviceClass;
    use crate::question::plan::{IgnoredInEq, StepApi};

    fn key(tensor_parallel_size: u32, quantization: Quantization) -> EngineKey {
        EngineKey {
            device: DeviceClass::Cpu,
            model: "m".to_owned(),
            tensor_parallel_size,
            quantization,
            quantization_switches: Default::default(),
            engine_args: Vec::new(),
            step_api: StepApi::EngineCore,
            args_location: IgnoredInEq::default(),
        }
    }

    #[test]
    fn label_that_the_parsed_arguments_contradict_is_named() {
        let parsed = |tp: u32, quantization: Option<&str>| ParsedLabels {
            model: Some("m".to_owned()),
            tensor_parallel_size: Some(tp),
            quantization: quantization.map(str::to_owned),
            ..ParsedLabels::default()
        };
        assert_eq!(parsed(2, None).contradiction(&key(2, Quantization::None), "m"), None);
        assert_eq!(parsed(2, Some("fp8")).contradiction(&key(2, Quantization::Fp8), "m"), None);
        assert_eq!(ParsedLabels::default().contradiction(&key(2, Quantization::None), "m"), None, "nothing is read");
        for (parsed, of, wanted) in [
            (parsed(2, None), key(1, Quantization::None), "`tensor_parallel_size` is 1 here, and vLLM reads 2"),
            (parsed(1, Some("fp8")), key(1, Quantization::None), "`quantization` is none here, and vLLM reads fp8"),
        ] {
            let said = parsed.contradiction(&of, "m").unwrap();
            assert!(said.starts_with(wanted), "{said}");
        }
        let of_file = |words: &str| serde_json::from_str::<ParsedLabels>(words).unwrap();
        let staged = EngineKey {
            engine_args: vec!["--pipeline-parallel-size".to_owned(), "2".to_owned()],
            ..key(1, Quantization::None)
        };
        for (words, of, wanted) in [
            (r#"{"pipeline_parallel_size": 2}"#, &staged, None),
            (
                r#"{"pipeline_parallel_size": 2}"#,
                &key(1, Quantization::None),
                Some("`--pipeline-parallel-size` is 1 here"),
            ),
            (
                r#"{"pipeline_parallel_size": 3}"#,
                &staged,
                Some("`--pipeline-parallel-size` is 2 here, and vLLM reads 3"),
            ),
            (
                r#"{"pipeline_parallel_size": 2, "prefill_context_parallel_size": 2}"#,
                &staged,
                Some("`--prefill-context-parallel-size` is 1 here, and vLLM reads 2 in the file of `--config`"),
            ),
            (r#"{"data_parallel_size": 1, "quantization": null}"#, &key(1, Quantization::None), None),
            (
                r#"{"data_parallel_size": 2}"#,
                &key(1, Quantization::None),
                Some(
                    "data_parallel_size 2 in the file of `--config` is refused: data parallelism runs several engines",
                ),
            ),
        ] {
            let said = of_file(words).contradiction(of, "m");
            assert_eq!(said.is_some(), wanted.is_some(), "{words}: {said:?}");
            assert!(said.is_none_or(|said| said.starts_with(wanted.unwrap())), "{words}");
        }
        for (method, given) in [("fp8", "as the key `quantization`"), ("awq", "as `--quantization awq` in `args`")] {
            let said = parsed(1, Some(method)).contradiction(&key(1, Quantization::None), "m").unwrap();
            assert!(said.ends_with(&format!("give it {given} and take it out there")), "{said}");
        }
        let other = parsed(1, None).contradiction(&key(1, Quantization::None), "n").unwrap();
        assert!(other.starts_with("`model` is n here, and vLLM reads m"), "{other}");
    }
}
