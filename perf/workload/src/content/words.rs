//! Words to make texts of.

use std::{collections::BTreeSet, sync::Arc};

use baton_tokenizer::Tokenizer;

/// Fewer words of one token each would make texts alike. Small vocabularies have few that begin a text with one token, too.
const MIN_FIRST: usize = 64;
const MIN_REST: usize = 256;
/// So many are enough, and fit a cache.
const MAX_WORDS: usize = 4096;

/// Words for the beginning of a piece, and for the rest of it. Both sorted, so that they do not depend on how the vocabulary is kept.
#[derive(Clone, Debug)]
pub(super) struct Words {
    first: Arc<[Box<str>]>,
    rest: Arc<[Box<str>]>,
    is_exact: bool,
}

impl Words {
    pub(super) fn first(&self) -> &[Box<str>] {
        &self.first
    }

    pub(super) fn rest(&self) -> &[Box<str>] {
        &self.rest
    }

    pub(super) fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Words of which any row, with a space between each two, has as many tokens as words; `None` when there are too few. Those for the
    /// beginning of a piece are one token at the beginning of a text, too.
    pub(super) fn of_one_token(tokenizer: &Tokenizer) -> Option<Self> {
        let candidates = candidates(tokenizer)?;
        let count = |text: &str| tokenizer.encode(text, false).map_or(0, |ids| ids.len());
        let (alone, inside): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|word| count(word) == 1);
        let anchor = alone.first()?.clone();
        let is_one_after = |word: &str| count(&format!("{anchor} {word} {word}")) == 3;
        let first: Vec<Box<str>> = alone.iter().filter(|word| is_one_after(word)).cloned().collect();
        let mut rest: Vec<Box<str>> =
            inside.iter().filter(|word| is_one_after(word)).chain(&first).cloned().collect();
        rest.sort_unstable();
        let words = Self { first: first.into(), rest: rest.into(), is_exact: true };
        let is_enough = words.first.len() >= MIN_FIRST && words.rest.len() >= MIN_REST;
        (is_enough && words.holds(&count)).then_some(words)
    }

    /// Whether words are one token beside each other, too.
    fn holds(&self, count: &impl Fn(&str) -> usize) -> bool {
        let upwards = self.first.iter().take(1).chain(self.rest.iter()).map(AsRef::as_ref);
        let downwards = self.first.iter().take(1).chain(self.rest.iter().rev()).map(AsRef::as_ref);
        let texts: [Vec<&str>; 2] = [upwards.collect(), downwards.collect()];
        texts.iter().all(|words| count(&words.join(" ")) == words.len())
    }

    /// Common English words.
    pub(super) fn common() -> Self {
        let mut words: Vec<Box<str>> = COMMON.split_whitespace().map(Box::from).collect();
        words.sort_unstable();
        words.dedup();
        let words: Arc<[Box<str>]> = words.into();
        Self { first: Arc::clone(&words), rest: words, is_exact: false }
    }

    /// Tokens of a word within a text, on average.
    pub(super) fn mean_tokens(&self, tokenizer: &Tokenizer) -> f64 {
        let text = self.rest.join(" ");
        let tokens = tokenizer.encode(&text, false).map_or(self.rest.len(), |ids| ids.len());
        (tokens as f64 / self.rest.len() as f64).max(0.01)
    }
}

/// Words that the vocabulary spells with a space before them; evenly from all of it when there are many.
fn candidates(tokenizer: &Tokenizer) -> Option<Vec<Box<str>>> {
    let vocabulary = tokenizer.vocabulary()?;
    let words: BTreeSet<&str> = vocabulary
        .iter()
        .filter(|token| !token.is_special)
        .filter_map(|token| str::from_utf8(token.bytes.strip_prefix(b" ")?).ok())
        .filter(|word| is_plain(word))
        .collect();
    let step = words.len().div_ceil(MAX_WORDS).max(1);
    Some(words.into_iter().step_by(step).map(Box::from).collect())
}

/// Letters, of which only the first may be large: tokenizers cut words where the case changes.
fn is_plain(word: &str) -> bool {
    let Some((first, rest)) = word.as_bytes().split_first() else { return false };
    word.len() <= 16 && first.is_ascii_alphabetic() && rest.iter().all(u8::is_ascii_lowercase)
}

const COMMON: &str = "\
    able about above across act action add after again against age ago air all allow almost alone along also always among amount and \
    animal another answer any apple area arm around arrive art ask away baby back bad bag ball bank base bath bear beat because become \
    bed before begin behind believe below best better between big bird bit black block blood blow blue board boat body bone book born \
    both bottle bottom box boy branch bread break bridge bright bring brother brown build burn business but buy call camp can capital \
    captain car card care carry case catch cause cell center century certain chair chance change character charge check chief child \
    choose church circle city class clean clear climb clock close cloth cloud coast coat cold collect color column come common company \
    compare complete condition consider contain continue control cook cool copy corn corner correct cost cotton could count country \
    course cover create crop cross crowd cry current cut dance danger dark day dead deal dear death decide deep degree depend describe \
    desert design determine develop dictionary die difference different difficult direct discuss distance divide doctor dog dollar door \
    double down draw dream dress drink drive drop dry during each early earth east easy eat edge effect egg eight either electric \
    element else end enemy energy engine enough enter equal even evening event ever every exact example except excite exercise expect \
    experience experiment eye face fact fair fall family famous far farm fast father favor fear feed feel feet few field fight figure \
    fill final find fine finger finish fire first fish five flat floor flow flower fly follow food foot for force foreign forest form \
    forward found four free fresh friend from front fruit full fun game garden gas gather general gentle get girl give glad glass gold \
    gone good govern grand grass gray great green ground group grow guess guide gun hair half hand happen happy hard hat have head hear \
    heart heat heavy help here high hill history hit hold hole home hope horse hot hotel hour house how huge human hundred hunt hurry \
    ice idea imagine inch include industry insect instant instrument interest invent iron island job join joy jump just keep key kill \
    kind king know lady lake land language large last late laugh law lay lead learn least leave left leg length less let letter level \
    lie life lift light like line liquid list listen little live locate log lone long look lost lot loud love low machine main major \
    make man many map mark market mass master match material matter may mean measure meat meet melody men metal method middle might \
    mile milk million mind mine minute miss mix modern molecule moment money month moon more morning most mother motion mount mountain \
    mouth move much multiply music must name nation natural nature near necessary neck need neighbor never new next night nine noise \
    noon north nose note nothing notice noun now number numeral object observe occur ocean off offer office often oil old once one only \
    open operate opposite order organ original other our out over own oxygen page paint pair paper paragraph parent part particular \
    party pass past path pattern pay people perhaps period person phrase pick picture piece pitch place plain plan plane planet plant \
    play please point poor populate port pose position possible post pound power practice prepare present press pretty print probable \
    problem process produce product proper property protect prove provide pull push put quart question quick quiet quite race radio rail \
    rain raise range rather reach read ready real reason receive record red region remember repeat reply represent require rest result \
    rich ride right ring rise river road rock roll room root rope rose round row rub rule run safe sail salt same sand save say scale \
    school science score sea search season seat second section see seed seem segment select self sell send sense sentence separate serve \
    set settle seven several shall shape share sharp shell shine ship shoe shop shore short should shoulder shout show side sight sign \
    silent silver similar simple since sing single sister sit six size skill skin sky sleep slip slow small smell smile snow soft soil \
    soldier solution solve some son song soon sound south space speak special speech speed spell spend spot spread spring square stand \
    star start state station stay stead steam steel step stick still stone stood stop store story straight strange stream street stretch \
    string strong student study subject success such sudden suffix sugar suggest suit summer sun supply support sure surface surprise \
    swim symbol system table tail take talk tall teach team teeth tell temperature ten term test than thank that the their them then \
    there these they thick thin thing think third this those thousand three through throw thus tie time tiny tire together tone too tool \
    top total touch toward town track trade train travel tree triangle trip trouble truck true try tube turn twenty two type under unit \
    until use usual valley value vary verb very view village visit voice vowel wait walk wall want war warm wash watch water wave way \
    wear weather week weight well west what wheel when where which while white who whole why wide wife wild will win wind window wing \
    winter wire wish with woman wonder wood word work world would write wrong yard year yellow yes yet you young";
