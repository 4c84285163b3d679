//! The configuration's text before it is JSON: comments, positions, `${NAME}`.

/// Blanks `//` and `/* */` comments, keeping every byte's position, so that an error found later
/// points into the file. The error is the offset of a comment that is never closed.
pub fn blank_comments(text: &str) -> Result<String, usize> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if let Some(behind) = rest.strip_prefix('\u{feff}') {
        // Some editors begin a file with a byte order mark.
        push_blanks(&mut out, "\u{feff}");
        rest = behind;
    }
    while let Some(first) = rest.chars().next() {
        let is_comment = rest.starts_with("//") || rest.starts_with("/*");
        let len = match first {
            '"' => string_len(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            // The closing `*/` may not share its star with the opening one.
            '/' if is_comment => {
                let body = rest.split_at(2).1;
                body.find("*/").ok_or(text.len() - rest.len())? + 4
            }
            other => other.len_utf8(),
        };
        let (piece, behind) = rest.split_at(len);
        if is_comment {
            push_blanks(&mut out, piece);
        } else {
            out.push_str(piece);
        }
        rest = behind;
    }
    Ok(out)
}

/// The length of the string literal at the beginning of `text`, quotes included. It ends with its
/// line at the latest, as in JSON: a forgotten quote hides no comment further down.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn push_blanks(out: &mut String, piece: &str) {
    for c in piece.chars() {
        match c {
            '\n' => out.push('\n'),
            c => out.extend(std::iter::repeat_n(' ', c.len_utf8())),
        }
    }
}

/// Line and column (in characters) of a byte offset, both from 1.
pub fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = || text.char_indices().take_while(|&(at, _)| at < offset).map(|(_, c)| c);
    let line = 1 + before().filter(|&c| c == '\n').count();
    let column = before().fold(1, |column, c| if c == '\n' { 1 } else { column + 1 });
    (line, column)
}

/// Replaces each `${NAME}` by the environment's value, which is not looked into again; `$${` is a
/// literal `${`. The error says what is wrong without repeating the text around it.
pub fn interpolate(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = behind;
            continue;
        }
        let (name, behind) = behind
            .split_once('}')
            .filter(|(name, _)| is_variable_name(name))
            .ok_or("a ${ without a variable's name and a }; a literal ${ is written $${")?;
        let value = environment(name)
            .ok_or_else(|| format!("the environment variable {name} is not set"))?;
        out.push_str(before);
        out.push_str(&value);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// The names that shells can set (POSIX, "Environment Variables").
fn is_variable_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_blanks_and_nothing_moves() {
        for (text, blanked) in [
            ("{} // end", "{}       "),
            ("{ /* a\nb */ }", "{     \n     }"),
            ("{\"a//b\": \"/* c */\"}", "{\"a//b\": \"/* c */\"}"),
            ("\"a\\\"// b\" // c", "\"a\\\"// b\"     "),
            ("/*/ still */1", "            1"),
            ("/**/1", "    1"),
            ("// é\n1", "     \n1"),
            ("\u{feff}{}", "   {}"),
            ("\"open\n// gone", "\"open\n       "),
            ("a / b", "a / b"),
            ("é", "é"),
        ] {
            assert_eq!(blank_comments(text).as_deref(), Ok(blanked), "{text}");
            assert_eq!(blanked.len(), text.len());
        }
        assert_eq!(blank_comments("{} /* never"), Err(3));
        assert_eq!(blank_comments("{} /*/"), Err(3));
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("ab", 0), (1, 1));
        assert_eq!(position("é\nü=x", 3 + 3), (2, 3));
        assert_eq!(position("a\n", 99), (2, 1));
    }

    #[test]
    fn variables_are_replaced_once() {
        let environment = |name: &str| match name {
            "HOST" => Some("example.com".to_owned()),
            "TRAP" => Some("${HOST}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let read = |text| interpolate(text, &environment);
        assert_eq!(read("plain $ } {").as_deref(), Ok("plain $ } {"));
        assert_eq!(read("http://${HOST}/${EMPTY}x").as_deref(), Ok("http://example.com/x"));
        assert_eq!(read("${TRAP}").as_deref(), Ok("${HOST}"));
        assert_eq!(read("$${HOST}").as_deref(), Ok("${HOST}"));
        assert_eq!(read("$$${HOST}").as_deref(), Ok("$${HOST}"));
        assert_eq!(read("$HOST").as_deref(), Ok("$HOST"));
        assert_eq!(read("${NONE}"), Err("the environment variable NONE is not set".to_owned()));
        for broken in ["${", "${}", "${HOST", "${a b}", "${1}", "${é}", "a${${HOST}}"] {
            let problem = read(broken).unwrap_err();
            assert_eq!(
                problem,
                "a ${ without a variable's name and a }; a literal ${ is written $${"
            );
        }
    }
}
