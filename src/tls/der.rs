//! Whose a certificate is, and for when, for log lines: the few steps through DER (X.690) that lead
//! to its subject, issuer and validity (RFC 5280, section 4.1). Trust does not hang on any of it.

use crate::time::Wall;

/// `id-at-commonName`, 2.5.4.3, and `id-at-organizationName`, 2.5.4.10.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANIZATION: &[u8] = &[0x55, 4, 10];

const UTC_TIME: u8 = 23;
const SEQUENCE: u8 = 0x30;
const EXPLICIT_0: u8 = 0xa0;

/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 64;

/// The names of a certificate's subject and issuer, as far as they can be read.
pub fn subject_and_issuer(certificate: &[u8]) -> (String, String) {
    match fields(certificate) {
        Some(fields) => (shown(fields.subject), shown(fields.issuer)),
        None => ("?".to_owned(), "?".to_owned()),
    }
}

/// The first and the last moment at which a certificate is valid, as far as they can be read.
pub fn validity(certificate: &[u8]) -> Option<(Wall, Wall)> {
    let mut validity = fields(certificate)?.validity;
    let mut next = || any_element(&mut validity).and_then(|(tag, text)| moment(tag, text));
    Some((next()?, next()?))
}

struct Fields<'a> {
    issuer: &'a [u8],
    validity: &'a [u8],
    subject: &'a [u8],
}

fn fields(certificate: &[u8]) -> Option<Fields<'_>> {
    let mut outer = certificate;
    let mut signed = element(&mut outer, SEQUENCE)?;
    let mut fields = element(&mut signed, SEQUENCE)?;
    if fields.first() == Some(&EXPLICIT_0) {
        any_element(&mut fields)?; // version
    }
    any_element(&mut fields)?; // serial number
    any_element(&mut fields)?; // signature algorithm
    let issuer = element(&mut fields, SEQUENCE)?;
    let validity = element(&mut fields, SEQUENCE)?;
    let subject = element(&mut fields, SEQUENCE)?;
    Some(Fields { issuer, validity, subject })
}

/// `YYMMDDHHMMSSZ`, where the years begin with 1950, or with the whole year (section 4.1.2.5).
fn moment(tag: u8, text: &[u8]) -> Option<Wall> {
    let text = str::from_utf8(text).ok()?;
    let century = match text.as_bytes().first()? {
        _ if tag != UTC_TIME => "",
        b'0'..=b'4' => "20",
        _ => "19",
    };
    let (date, time) = text.split_at_checked(8 - century.len())?;
    Wall::parse(&format!("{century}{date}T{time}"))
}

/// The common name of a distinguished name, else its organization.
fn shown(name: &[u8]) -> String {
    let found = attribute(name, COMMON_NAME).or_else(|| attribute(name, ORGANIZATION));
    let text = found.map(String::from_utf8_lossy).unwrap_or_default();
    if text.is_empty() {
        return "nobody".to_owned();
    }
    text.chars().take(NAME_CHARS_MAX).collect()
}

fn attribute<'a>(mut name: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    while !name.is_empty() {
        let (_, mut set) = any_element(&mut name)?;
        let mut pair = element(&mut set, SEQUENCE)?;
        let (_, kind) = any_element(&mut pair)?;
        if kind == wanted {
            return any_element(&mut pair).map(|(_, value)| value);
        }
    }
    None
}

fn element<'a>(input: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    any_element(input).filter(|&(tag, _)| tag == wanted).map(|(_, content)| content)
}

/// Takes the next element: its tag and its content. Lengths of up to three bytes.
fn any_element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 3)?;
        (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let length = u8::try_from(content.len()).unwrap();
        let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [head, content].concat()
    }

    fn name(kind: &[u8], text: &str) -> Vec<u8> {
        let pair = of(SEQUENCE, &[&of(6, &[kind]), &of(12, &[text.as_bytes()])]);
        of(SEQUENCE, &[&of(0x31, &[&pair])])
    }

    fn certificate(version: &[u8], subject: &[u8], issuer: &[u8]) -> Vec<u8> {
        let (serial, algorithm) = (of(2, &[&[7]]), of(SEQUENCE, &[]));
        let validity =
            of(SEQUENCE, &[&of(23, &[b"491231235959Z"]), &of(24, &[b"20500101000000Z"])]);
        let fields = of(SEQUENCE, &[version, &serial, &algorithm, issuer, &validity, subject]);
        of(SEQUENCE, &[&fields, &algorithm])
    }

    #[test]
    fn names_are_found() {
        let long = "x".repeat(90);
        let both = |subject: &str, issuer: &str| (subject.to_owned(), issuer.to_owned());
        let version = of(EXPLICIT_0, &[&of(2, &[&[2]])]);
        let (books, house) = (name(COMMON_NAME, "books.example"), name(ORGANIZATION, "House"));
        let whole = certificate(&version, &books, &house);
        assert_eq!(subject_and_issuer(&whole), both("books.example", "House"));
        let bare = certificate(&[], &of(SEQUENCE, &[]), &name(COMMON_NAME, &long));
        assert_eq!(subject_and_issuer(&bare), both("nobody", &long[..64]));
    }

    #[test]
    fn moments_are_found() {
        let whole = certificate(&[], &name(COMMON_NAME, "a"), &name(COMMON_NAME, "b"));
        let at = |text| Wall::parse(text).unwrap();
        let both = (at("2049-12-31T23:59:59Z"), at("2050-01-01T00:00:00Z"));
        assert_eq!(validity(&whole), Some(both));
        assert_eq!(moment(UTC_TIME, b"500101000000Z"), Some(at("1950-01-01T00:00:00Z")));
        for text in [&b""[..], b"4", b"491", b"491231", b"\xff\xff", "49123\u{e9}".as_bytes()] {
            assert!(moment(UTC_TIME, text).is_none() || text == b"491231");
        }
    }

    #[test]
    fn any_bytes_will_do() {
        let whole = certificate(&[], &name(COMMON_NAME, "a"), &name(COMMON_NAME, "b"));
        for end in 0..whole.len() {
            assert_eq!(subject_and_issuer(&whole[..end]).0, "?");
            assert_eq!(validity(&whole[..end]), None);
        }
        for at in 0..whole.len() {
            for value in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                subject_and_issuer(&broken);
                validity(&broken);
            }
        }
    }
}
