//! The marks that models write around reasoning and tool calls: text to some tokenizers, control tokens to others.

/// Opens reasoning (Qwen3, DeepSeek-R1).
pub const THINK_OPEN: &str = "<think>";
/// Closes it.
pub const THINK_CLOSE: &str = "</think>";

/// Opens a call of Hermes and Qwen.
pub const TOOL_CALL_OPEN: &str = "<tool_call>";
/// Closes it.
pub const TOOL_CALL_CLOSE: &str = "</tool_call>";

/// Opens a function's name, of Qwen3-Coder; `>` closes it.
pub const FUNCTION_OPEN: &str = "<function=";
/// Ends its arguments.
pub const FUNCTION_CLOSE: &str = "</function>";
/// Opens an argument's name, which `>` closes.
pub const PARAMETER_OPEN: &str = "<parameter=";
/// Ends its value.
pub const PARAMETER_CLOSE: &str = "</parameter>";

/// Stands before calls of Llama 3, sometimes.
pub const PYTHON_TAG: &str = "<|python_tag|>";

/// Stands before Mistral's calls.
pub const TOOL_CALLS: &str = "[TOOL_CALLS]";
/// Between name and arguments, of its newer models.
pub const ARGS: &str = "[ARGS]";
/// Between name and a call's id.
pub const CALL_ID: &str = "[CALL_ID]";

/// Begins a message of harmony (gpt-oss).
pub const START: &str = "<|start|>";
/// Before its channel.
pub const CHANNEL: &str = "<|channel|>";
/// Before the type of its body.
pub const CONSTRAIN: &str = "<|constrain|>";
/// Before its body.
pub const MESSAGE: &str = "<|message|>";
/// Ends it.
pub const END: &str = "<|end|>";
/// Ends it, and is a call.
pub const CALL: &str = "<|call|>";
/// Ends it, and the answer.
pub const RETURN: &str = "<|return|>";
