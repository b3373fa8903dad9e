//! Which formats a model writes, by its chat template: the marks that it puts around calls and reasoning of earlier turns are those
//! that the model was trained to write.

use crate::{Formats, ReasoningFormat, ToolFormat, marks};

/// Marks of formats that are not here, beside marks of some that are: GLM's and its kin's arguments, ByteDance Seed's and MiniMax's
/// calls, Apriel's lists, functionary's and firefunction's calls in Llama's turns.
const OTHERS: [&str; 6] =
    ["<arg_key>", "<seed:tool_call>", "<invoke name=", "<tool_calls>[", "functools[", "'>>>"];

/// The formats of a model with this chat template.
pub fn detect(template: &str) -> Formats {
    let has = |mark: &str| template.contains(mark);
    if has(marks::CHANNEL) && has(marks::MESSAGE) {
        return Formats { tools: Some(ToolFormat::Harmony), reasoning: Some(ReasoningFormat::Harmony) };
    }
    let tools = if OTHERS.into_iter().any(has) {
        None
    } else if has(marks::FUNCTION_OPEN) {
        // With JSON instead it is functionary's.
        has(marks::PARAMETER_OPEN).then_some(ToolFormat::Qwen3Coder)
    } else if has(marks::TOOL_CALL_OPEN) {
        Some(ToolFormat::Hermes)
    } else if has(marks::TOOL_CALLS) {
        Some(ToolFormat::Mistral)
    } else if has(marks::PYTHON_TAG) || (has("<|eot_id|>") && has("\"parameters\": ")) {
        Some(ToolFormat::Llama3Json)
    } else {
        None
    };
    let has_think = has(marks::THINK_OPEN) || has(marks::THINK_CLOSE);
    Formats { tools, reasoning: has_think.then_some(ReasoningFormat::Think) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_shows_what_its_model_writes() {
        let check = |template: &str, tools, reasoning| {
            assert_eq!(detect(template), Formats { tools, reasoning }, "{template}");
        };
        check("{{ '<|im_start|>' }}", None, None);
        check("<tool_call> </think>", Some(ToolFormat::Hermes), Some(ReasoningFormat::Think));
        check("<tool_call>\n<function=f>\n<parameter=x>", Some(ToolFormat::Qwen3Coder), None);
        check("[TOOL_CALLS]", Some(ToolFormat::Mistral), None);
        check("<|eot_id|> '\"parameters\": '", Some(ToolFormat::Llama3Json), None);
        check("<|eot_id|> {% if tools %}", None, None);
        check("<|python_tag|> '<function=' + name + '>' + arguments", None, None);
        check("<tool_call>f\n<arg_key>x</arg_key> <think>", None, Some(ReasoningFormat::Think));
        check("ns ~ '<tool_call>' '<invoke name=\"'", None, None);
        check("<|eot_id|>", None, None);
        check("<|channel|>x<|message|>", Some(ToolFormat::Harmony), Some(ReasoningFormat::Harmony));
    }
}
