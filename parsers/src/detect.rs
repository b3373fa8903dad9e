//! Which formats a model writes, by its chat template: the marks that it puts around calls and reasoning of earlier turns are those
//! that the model was trained to write.

use crate::{Formats, ReasoningFormat, ToolFormat, marks};

/// The formats of a model with this chat template.
pub fn detect(template: &str) -> Formats {
    let has = |mark: &str| template.contains(mark);
    if has(marks::CHANNEL) && has(marks::MESSAGE) {
        return Formats { tools: Some(ToolFormat::Harmony), reasoning: Some(ReasoningFormat::Harmony) };
    }
    let tools = if has(marks::TOOL_CALL_OPEN) {
        Some(ToolFormat::Hermes)
    } else if has(marks::TOOL_CALLS) {
        Some(ToolFormat::Mistral)
    } else if has(marks::PYTHON_TAG) || (has("<|eot_id|>") && has("tools")) {
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
        check("[TOOL_CALLS]", Some(ToolFormat::Mistral), None);
        check("<|eot_id|> {% if tools %}", Some(ToolFormat::Llama3Json), None);
        check("<|eot_id|>", None, None);
        check("<|channel|>x<|message|>", Some(ToolFormat::Harmony), Some(ReasoningFormat::Harmony));
    }
}
