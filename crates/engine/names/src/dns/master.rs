//! The master format of zones (RFC 1035 §5), entry by entry.
//!
//! hickory-proto's parser reads the data of a record; the entries are read here, because it opens
//! files (`$INCLUDE`), has no lines for its errors, keeps one of two aliases in silence, and takes
//! neither several strings over several lines nor records of types that it does not know (RFC 3597).

use super::zone::ZoneError;
use core::str::FromStr;
use hickory_proto::rr::rdata::{NULL, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordData, RecordType};
use hickory_proto::serialize::binary::{BinDecoder, BinEncodable, Restrict};
use hickory_proto::serialize::txt::{Parser, parse_ttl};

/// The longest string in a record's data, in bytes (RFC 1035 §3.3): its length is a byte.
const STRING_MAX: usize = 255;

/// The longest data of a record, in bytes: what an answer over TCP holds beside its header, the
/// question, the owner's name and EDNS.
const DATA_MAX: usize = 65_535 - 1024;

/// RFC 2181 §8: a time to live has 31 bits.
const TTL_MAX: u32 = i32::MAX as u32;

/// A record, and the line on which it begins.
pub(super) type Entry = (usize, Record);

/// Reads all records of a text.
pub(super) fn read(text: &str, origin: Option<Name>) -> Result<Vec<Entry>, ZoneError> {
    let mut origin = origin;
    if let Some(origin) = &mut origin {
        origin.set_fqdn(true);
    }
    let mut reader = Reader { origin, ..Reader::default() };
    let mut records = Vec::new();
    let mut lexer = Lexer { rest: text, line: 1 };
    while let Some(line) = lexer.next_entry()? {
        let number = line.number;
        records.extend(reader.entry(line)?.map(|record| (number, record)));
    }
    Ok(records)
}

fn syntax(line: usize, why: impl ToString) -> ZoneError {
    ZoneError::Syntax { line, why: why.to_string() }
}

/// A word, as it stands in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<'a> {
    text: &'a str,
    /// It was in quotes, which are not part of `text`.
    is_quoted: bool,
}

/// The words of an entry, those on the following lines included if parentheses hold it together.
#[derive(Debug)]
struct Line<'a> {
    number: usize,
    /// It begins with a blank: its owner is that of the entry before.
    is_indented: bool,
    words: Vec<Word<'a>>,
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next_entry(&mut self) -> Result<Option<Line<'a>>, ZoneError> {
        while !self.rest.is_empty() {
            let line = self.entry()?;
            if !line.words.is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// One entry, up to its line's end; perhaps an empty one.
    fn entry(&mut self) -> Result<Line<'a>, ZoneError> {
        let mut line = Line {
            number: self.line,
            is_indented: self.rest.starts_with([' ', '\t']),
            words: Vec::new(),
        };
        // Lines on which parentheses were opened.
        let mut open: Option<usize> = None;
        while let Some(first) = self.rest.chars().next() {
            match first {
                '\n' => {
                    self.advance(1);
                    self.line += 1;
                    if open.is_none() {
                        return Ok(line);
                    }
                }
                ';' => self.advance(self.rest.find('\n').unwrap_or(self.rest.len())),
                '(' if open.is_none() => {
                    open = Some(self.line);
                    self.advance(1);
                }
                ')' if open.is_some() => {
                    open = None;
                    self.advance(1);
                }
                '(' => return Err(syntax(self.line, "parentheses within parentheses")),
                ')' => return Err(syntax(self.line, "a parenthesis ends that did not begin")),
                blank if blank.is_whitespace() => self.advance(blank.len_utf8()),
                '"' => {
                    self.advance(1);
                    let len = self.quoted_len()?;
                    line.words.push(Word { text: &self.rest[..len], is_quoted: true });
                    self.line += self.rest[..len].matches('\n').count();
                    self.advance(len + 1);
                }
                _ => {
                    let len = self.word_len()?;
                    line.words.push(Word { text: &self.rest[..len], is_quoted: false });
                    self.advance(len);
                }
            }
        }
        match open {
            Some(line) => Err(syntax(line, "a parenthesis begins that does not end")),
            None => Ok(line),
        }
    }

    fn advance(&mut self, len: usize) {
        self.rest = &self.rest[len..];
    }

    /// Length of what stands before the closing quotation mark.
    fn quoted_len(&self) -> Result<usize, ZoneError> {
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => return Ok(at),
                '\\' => _ = characters.next(),
                _ => {}
            }
        }
        Err(syntax(self.line, "a quotation mark begins that does not end"))
    }

    /// Length of a word; a part of it may be in quotes (`alpn="h2,h3"`).
    fn word_len(&self) -> Result<usize, ZoneError> {
        let mut is_quoted = false;
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => is_quoted = !is_quoted,
                '\\' if characters.next().is_none_or(|(_, next)| next == '\n') => {
                    return Err(syntax(self.line, "nothing follows a backslash"));
                }
                '\\' => {}
                '(' | ')' | ';' if !is_quoted => return Ok(at),
                '\n' if is_quoted => break,
                blank if blank.is_whitespace() && !is_quoted => return Ok(at),
                _ => {}
            }
        }
        if is_quoted {
            return Err(syntax(self.line, "a quotation mark begins that does not end"));
        }
        Ok(self.rest.len())
    }
}

/// What entries inherit from those before.
#[derive(Default)]
struct Reader {
    origin: Option<Name>,
    owner: Option<Name>,
    /// That of `$TTL` (RFC 2308 §4).
    default_ttl: Option<u32>,
    /// The last one that a record said (RFC 1035 §5.1).
    last_ttl: Option<u32>,
}

impl Reader {
    fn entry(&mut self, line: Line<'_>) -> Result<Option<Record>, ZoneError> {
        let number = line.number;
        let mut words = line.words.as_slice();
        let first = words[0];
        if !line.is_indented && !first.is_quoted && first.text.starts_with('$') {
            self.directive(number, first.text, &words[1..])?;
            return Ok(None);
        }
        if !line.is_indented {
            self.owner = Some(self.name(number, first)?);
            words = &words[1..];
        }
        let owner = self.owner.clone();
        let owner = owner.ok_or_else(|| syntax(number, "the first record has no name"))?;
        let mut ttl = None;
        let mut class = DNSClass::IN;
        // The time and the class, in either order (RFC 1035 §5.1).
        let kind = loop {
            let word = words.split_off_first();
            let word = word.ok_or_else(|| syntax(number, format!("{owner} has no type")))?;
            let upper = word.text.to_ascii_uppercase();
            if upper.starts_with(|first: char| first.is_ascii_digit()) {
                ttl = Some(self.ttl(number, &upper)?);
            } else if let Ok(given) = DNSClass::from_str(&upper) {
                class = given;
            } else {
                break upper;
            }
        };
        if class != DNSClass::IN {
            return Err(ZoneError::Class { line: number, name: owner });
        }
        self.last_ttl = ttl.or(self.last_ttl);
        let ttl = ttl.or(self.default_ttl).or(self.last_ttl).ok_or_else(|| {
            syntax(number, format!("{owner} has no time to live, and there is no $TTL"))
        })?;
        let kind = record_type(number, &kind)?;
        let data = self.data(number, kind, words)?;
        Ok(Some(Record::from_rdata(owner, ttl, data)))
    }

    /// RFC 1035 §5.1, RFC 2308 §4.
    fn directive(
        &mut self,
        line: usize,
        directive: &str,
        words: &[Word<'_>],
    ) -> Result<(), ZoneError> {
        match (directive.to_ascii_uppercase().as_str(), words) {
            ("$ORIGIN", [name]) => {
                let mut origin = Name::parse(name.text, self.origin.as_ref())
                    .map_err(|error| syntax(line, format!("$ORIGIN {}: {error}", name.text)))?;
                origin.set_fqdn(true);
                self.origin = Some(origin);
            }
            ("$TTL", [ttl]) => self.default_ttl = Some(self.ttl(line, ttl.text)?),
            ("$ORIGIN", _) => return Err(syntax(line, "$ORIGIN takes a name")),
            ("$TTL", _) => return Err(syntax(line, "$TTL takes a time in seconds")),
            ("$INCLUDE", _) => return Err(ZoneError::Include { line }),
            (other, _) => {
                return Err(ZoneError::Unsupported {
                    line,
                    what: format!("the directive {other}"),
                });
            }
        }
        Ok(())
    }

    fn ttl(&self, line: usize, text: &str) -> Result<u32, ZoneError> {
        parse_ttl(text).ok().filter(|ttl| *ttl <= TTL_MAX).ok_or_else(|| {
            syntax(line, format!("{text} is no time to live: 0 to {TTL_MAX} seconds are"))
        })
    }

    /// A name, completed by the origin if it does not end with a dot.
    fn name(&self, line: usize, word: Word<'_>) -> Result<Name, ZoneError> {
        let origin = self.origin(line)?;
        if word.text == "@" {
            return Ok(origin.clone());
        }
        let mut name = Name::parse(word.text, Some(origin))
            .map_err(|error| syntax(line, format!("{}: {error}", word.text)))?;
        name.set_fqdn(true);
        Ok(name)
    }

    fn origin(&self, line: usize) -> Result<&Name, ZoneError> {
        self.origin.as_ref().ok_or_else(|| syntax(line, "there is no $ORIGIN before it"))
    }

    fn data(&self, line: usize, kind: RecordType, words: &[Word<'_>]) -> Result<RData, ZoneError> {
        let fail = |why: String| syntax(line, format!("{kind}: {why}"));
        let data = match words {
            [mark, rest @ ..] if mark.text == "\\#" && !mark.is_quoted => {
                generic(kind, rest).map_err(fail)?
            }
            [] => return Err(fail("it has no data".to_string())),
            _ if kind == RecordType::TXT => {
                let strings: Result<Vec<_>, _> = words.iter().map(string).collect();
                let strings = strings.map_err(fail)?;
                if let Some(long) = strings.iter().find(|it| it.len() > STRING_MAX) {
                    let len = long.len();
                    let why = format!("a string of {len} bytes: write several of {STRING_MAX}");
                    return Err(fail(why));
                }
                TXT::from_bytes(strings.iter().map(Vec::as_slice).collect()).into_rdata()
            }
            _ if matches!(kind, RecordType::Unknown(_) | RecordType::DS) => {
                return Err(ZoneError::Unsupported {
                    line,
                    what: format!("{kind} in words: write its data as \\# LENGTH HEX (RFC 3597)"),
                });
            }
            _ => self.typed(line, kind, words)?,
        };
        // What cannot be sent shall not be served: strings that are too long, and more.
        match data.to_bytes() {
            Ok(bytes) if bytes.len() <= DATA_MAX => Ok(data),
            Ok(bytes) => Err(fail(format!("{} bytes are more than an answer holds", bytes.len()))),
            Err(error) => Err(fail(format!("it cannot be sent: {error}"))),
        }
    }

    /// Data that hickory-proto's parser reads: as the only entry of a zone.
    fn typed(&self, line: usize, kind: RecordType, words: &[Word<'_>]) -> Result<RData, ZoneError> {
        let origin = self.origin(line)?;
        let fail = |why: String| syntax(line, format!("{kind}: {why}"));
        let mut text = format!(". 0 IN {kind}");
        for word in words {
            let content = if word.is_quoted {
                // Decoded, as its own lexer is wrong about \DDD.
                String::from_utf8(string(word).map_err(fail)?)
                    .map_err(|_| fail("its text is not UTF-8".to_string()))?
            } else if word.text == "@" {
                origin.to_ascii()
            } else {
                word.text.to_string()
            };
            text.push_str(" \"");
            for character in content.chars() {
                if matches!(character, '"' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('"');
        }
        text.push('\n');
        let (_, sets) = Parser::new(text, None, Some(origin.clone()))
            .parse()
            .map_err(|error| fail(error.to_string()))?;
        let record = sets.values().find_map(|set| set.records_without_rrsigs().next());
        record.map(|record| record.data.clone()).ok_or_else(|| fail("it has no data".to_string()))
    }
}

/// A record's type by its name, or by its number (RFC 3597 §5).
fn record_type(line: usize, text: &str) -> Result<RecordType, ZoneError> {
    let number = text.strip_prefix("TYPE").and_then(|digits| digits.parse::<u16>().ok());
    let kind = match number {
        Some(number) => RecordType::from(number),
        None => RecordType::from_str(text).map_err(|_| ZoneError::Unsupported {
            line,
            what: format!("the record type {text}"),
        })?,
    };
    // Names below a DNAME would have to be made up; signatures and their keys, to be made; the last
    // ones are of messages and questions (RFC 6895 §3.1).
    match (kind, u16::from(kind)) {
        (
            RecordType::DNAME
            | RecordType::SIG
            | RecordType::KEY
            | RecordType::RRSIG
            | RecordType::NSEC
            | RecordType::NSEC3
            | RecordType::NSEC3PARAM
            | RecordType::DNSKEY
            | RecordType::CDS
            | RecordType::CDNSKEY
            | RecordType::NULL
            | RecordType::OPT,
            _,
        )
        | (_, 0 | 128..=255) => {
            Err(ZoneError::Unsupported { line, what: format!("the record type {text}") })
        }
        _ => Ok(kind),
    }
}

/// `\# LENGTH HEX…` (RFC 3597 §5).
fn generic(kind: RecordType, words: &[Word<'_>]) -> Result<RData, String> {
    let (len, hex) = words.split_first().ok_or("no length follows \\#")?;
    let len: u16 = len.text.parse().map_err(|_| format!("{} is no length", len.text))?;
    let digits: Option<Vec<u8>> = hex
        .iter()
        .flat_map(|word| word.text.chars())
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits.ok_or("the data is not in hexadecimal digits")?;
    if digits.len() != 2 * usize::from(len) {
        return Err(format!("{} digits for {len} bytes", digits.len()));
    }
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if matches!(kind, RecordType::Unknown(_) | RecordType::DS) {
        // Its other constructor takes no empty data.
        let rdata = if bytes.is_empty() { NULL::new() } else { NULL::with(bytes) };
        return Ok(RData::Unknown { code: kind, rdata });
    }
    // Of a type that is known the data must be sound, and names in it are names.
    let mut decoder = BinDecoder::new(&bytes);
    RData::read(&mut decoder, kind, Restrict::new(len)).map_err(|error| error.to_string())
}

/// A string's bytes, without its escapes: `\DDD` is a byte, `\X` is X (RFC 1035 §5.1).
fn string(word: &Word<'_>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = word.text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'9', after @ ..]) => {
                let [b @ b'0'..=b'9', c @ b'0'..=b'9', after @ ..] = after else {
                    return Err("three digits follow a backslash, or none".to_string());
                };
                let [a, b, c] = [a, b, c].map(|digit| u16::from(digit - b'0'));
                let byte = u8::try_from(100 * a + 10 * b + c);
                bytes.push(byte.map_err(|_| format!("\\{a}{b}{c} is no byte"))?);
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                bytes.push(*escaped);
                rest = after;
            }
            (b'\\', []) => return Err("nothing follows a backslash".to_string()),
            (byte, after) => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    Ok(bytes)
}
