//! RESP2 as a Redis server reads and writes it: commands are arrays of bulk strings.

/// Reads the commands of one connection.
#[derive(Default)]
pub struct Commands {
    bytes: Vec<u8>,
}

impl Commands {
    /// Takes bytes and gives what is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Vec<String>> {
        self.bytes.extend_from_slice(bytes);
        let mut commands = Vec::new();
        while let Some((command, end)) = self.command() {
            self.bytes.drain(..end);
            commands.push(command);
        }
        commands
    }

    fn command(&self) -> Option<(Vec<String>, usize)> {
        let (count, mut at) = self.number(0, b'*')?;
        let mut words = Vec::new();
        for _ in 0..count {
            let (len, start) = self.number(at, b'$')?;
            let word = self.bytes.get(start..start + len)?;
            at = start + len + 2;
            assert_eq!(self.bytes.get(at - 2..at)?, b"\r\n", "a bulk string ends with CRLF");
            words.push(String::from_utf8(word.to_vec()).expect("commands are UTF-8 here"));
        }
        Some((words, at))
    }

    /// A number after its type byte, and where its line ends.
    fn number(&self, at: usize, kind: u8) -> Option<(usize, usize)> {
        let rest = self.bytes.get(at..)?;
        assert_eq!(*rest.first()?, kind, "a command is an array of bulk strings");
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let digits = std::str::from_utf8(&rest[1..end]).expect("digits");
        Some((digits.parse().expect("a length"), at + end + 2))
    }
}

/// An array of bulk strings; a number at the end where one is given.
pub fn array(words: &[&str], number: Option<usize>) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len() + usize::from(number.is_some()));
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    if let Some(number) = number {
        text.push_str(&format!(":{number}\r\n"));
    }
    text.into_bytes()
}
