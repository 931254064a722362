//! Whether a run's label is what its engine was found to hold, on facts made by hand.

use bench::analysis::metrics::RunMetrics;
use bench::analysis::verdict::{Status, Verdict};
use bench::measurement::timeline::{LayerCount, Timeline, Weights};
use bench::question::plan::Quantization;

use super::sketch::{typical_run, weights};

/// The reasons against a sound run of vLLM with this label and these weights.
fn reasons(label: Quantization, found: Option<Weights>) -> Vec<String> {
    let mut run: Timeline = typical_run("a", 0, 8);
    run.run.engine = "vllm".to_owned();
    run.run.engine_key.quantization = label;
    run.run.engine_facts.as_mut().unwrap().weights = found;
    let verdict = Verdict::of(&run, &RunMetrics::of_timeline(&run));
    assert_eq!(verdict.status == Status::Valid, verdict.reasons.is_empty());
    verdict.reasons
}

#[track_caller]
fn only_reason(expected: &[&str], label: Quantization, found: Option<Weights>) {
    let reasons = reasons(label, found);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    for text in expected {
        assert!(reasons[0].contains(text), "{text:?} is not in: {reasons:?}");
    }
}

/// Layers of one dtype, applied by these classes of vLLM.
fn of(dtype: &str, method: Option<&str>, kernel: Option<&str>) -> Option<Weights> {
    let mut found = weights(dtype, kernel);
    found.layers[0].method = method.map(str::to_owned);
    Some(found)
}

use Quantization::{Fp4, Fp8, None as Unquantized, Other};

#[test]
fn a_label_that_the_weights_bear_out_is_valid() {
    let (cpu, channel) = (Some("Fp8PtpcOnlineLinearMethod"), Some("ChannelWiseTorchFP8ScaledMMLinearKernel"));
    for (label, found) in [
        (Unquantized, of("bfloat16", Some("UnquantizedLinearMethod"), None)),
        (Unquantized, of("float32", None, None)),
        (Fp8, of("float8_e4m3fn", cpu, channel)),
        // tpu: qwix, and compressed-tensors or NVFP4 in vLLM's own implementation.
        (Fp8, of("float8_e4m3fn", None, None)),
        (Fp4, of("float4_e2m1fn", None, None)),
        // cuda, Blackwell: two weights in a byte, and in PyTorch's own dtype of two.
        (Fp4, of("uint8", Some("ModelOptNvFp4LinearMethod"), Some("FlashInferCutlassNvFp4LinearKernel"))),
        (Fp4, of("uint8", Some("Mxfp4OnlineLinearMethod"), Some("FlashInferMxFp4LinearKernel"))),
        (Fp4, of("float4_e2m1fn_x2", Some("ModelOptNvFp4LinearMethod"), Some("TorchNvFp4LinearKernel"))),
        (Other, of("int32", Some("AutoAWQMarlinLinearMethod"), Some("MarlinLinearKernel"))),
    ] {
        assert_eq!(reasons(label, found.clone()), Vec::<String>::new(), "{label:?} {found:?}");
    }
}

#[test]
fn silent_bf16_is_invalid() {
    // tpu: a compressed-tensors FP8 checkpoint in the default implementation, and qwix in vLLM's own.
    let bf16 = || of("bfloat16", None, None);
    only_reason(&["labelled fp8", "0.0 % of the weights of 4 layers are FP8", "bfloat16 in 4"], Fp8, bf16());
    only_reason(&["labelled fp4", "0.0 % of the weights of 4 layers are FP4"], Fp4, bf16());
    only_reason(&["labelled other", "quantized"], Other, bf16());
    only_reason(&["labelled fp4", "FP4: float8_e4m3fn in 4"], Fp4, of("float8_e4m3fn", None, None));
}

#[test]
fn weights_that_are_quantized_behind_the_label_none_are_invalid() {
    only_reason(&["labelled none", "100.0 %", "float8_e4m3fn in 4"], Unquantized, of("float8_e4m3fn", None, None));
    let packed = of("uint8", Some("ModelOptNvFp4LinearMethod"), Some("CutlassNvFp4LinearKernel"));
    only_reason(&["labelled none", "quantized: uint8 in 4"], Unquantized, packed);
}

#[test]
fn weight_only_kernels_are_invalid() {
    for (label, dtype, method, kernel) in [
        (Fp4, "int32", "ModelOptNvFp4LinearMethod", "MarlinNvFp4LinearKernel"),
        (Fp4, "int32", "Mxfp4OnlineLinearMethod", "MarlinMxFp4LinearKernel"),
        (Fp4, "uint8", "ModelOptNvFp4LinearMethod", "EmulationNvFp4LinearKernel"),
        (Fp4, "uint8", "CompressedTensorsW4A16Fp4", "FlashInferCuteDslNvFp4W4A16LinearKernel"),
        (Fp4, "uint8", "Mxfp4MoEMethod", "FLASHINFER_TRTLLM_MXFP4_BF16"),
        (Fp4, "uint8", "Mxfp4MoEMethod", "BATCHED_MARLIN"),
        (Fp8, "int32", "Fp8PerTensorOnlineLinearMethod", "MarlinFP8ScaledMMLinearKernel"),
        (Fp8, "float8_e4m3fn", "Fp8PerTensorOnlineLinearMethod", "CPUFp8PerTensorScaledMMLinearKernel"),
        (Fp8, "float8_e4m3fn", "Fp8MoEMethod", "CPU"),
    ] {
        let wanted = ["4 layers are computed by", kernel, "multiplies in 16 bits"];
        only_reason(&wanted, label, of(dtype, Some(method), Some(kernel)));
    }
    // A method that says so itself, whatever the kernel is called.
    only_reason(&["CompressedTensorsW8A16Fp8"], Fp8, of("float8_e4m3fn", Some("CompressedTensorsW8A16Fp8"), None));
}

#[test]
fn layers_that_a_checkpoint_leaves_as_they_were_count_by_their_weights() {
    let mixed = |full: u64| {
        let mut found = weights("float8_e4m3fn", None);
        let full = LayerCount { dtype: Some("bfloat16".to_owned()), weights: Some(full), ..found.layers[0].clone() };
        found.layers.push(full);
        Some(found)
    };
    assert_eq!(reasons(Fp8, mixed(3_999)), Vec::<String>::new());
    only_reason(&["50.0 % of the weights of 8 layers are FP8: bfloat16 in 4, float8_e4m3fn in 4"], Fp8, mixed(4_000));
    only_reason(&["labelled none"], Unquantized, mixed(4_000_000));
}

#[test]
fn a_matrix_that_a_kernel_has_taken_over_is_what_its_method_says() {
    let mut taken = weights("float32", None);
    taken.layers[0] =
        LayerCount { dtype: None, method: Some("UnquantizedLinearMethod".to_owned()), ..taken.layers[0].clone() };
    assert_eq!(reasons(Unquantized, Some(taken.clone())), Vec::<String>::new());
    only_reason(&["unknown dtype in 4"], Fp8, Some(taken));
}

#[test]
fn what_was_not_looked_at_bears_no_label_out() {
    for label in [Fp8, Fp4, Other] {
        only_reason(&["could not be looked at"], label, None);
        only_reason(&["no layer with weights"], label, Some(Weights::default()));
    }
    assert_eq!(reasons(Unquantized, None), Vec::<String>::new());
}

#[test]
fn a_script_has_no_weights_to_look_at() {
    let mut run = typical_run("a", 0, 8);
    run.run.engine_key.quantization = Fp8;
    assert_eq!(Verdict::of(&run, &RunMetrics::of_timeline(&run)).status, Status::Valid);
}
