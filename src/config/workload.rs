//! The named workloads.

/// Lengths under a name, in tokens; the shared prefix lies inside the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What `workload:` calls it.
    pub name: &'static str,
    /// Prompt tokens.
    pub input_len: u32,
    /// Output tokens.
    pub output_len: u32,
    /// Leading prompt tokens that all requests share.
    pub prefix_len: u32,
}

/// All named workloads.
pub const WORKLOADS: [Workload; 6] = [
    Workload { name: "reasoning", input_len: 2048, output_len: 8192, prefix_len: 0 },
    Workload { name: "text-generation", input_len: 1024, output_len: 4096, prefix_len: 0 },
    Workload { name: "chatbot", input_len: 1024, output_len: 1024, prefix_len: 0 },
    Workload { name: "code-generation", input_len: 8192, output_len: 2048, prefix_len: 7900 },
    Workload { name: "summarization", input_len: 2048, output_len: 256, prefix_len: 1800 },
    Workload { name: "summarization-4k", input_len: 4096, output_len: 256, prefix_len: 3800 },
];
