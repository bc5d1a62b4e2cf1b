//! Reading `netsys.toml`, with errors that name the file, the line, the key and what is allowed.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Deserializer, Spanned};

use super::{DEFAULT_LISTEN, Settings, keys, shown};
use crate::failure::{Failure, Result};

/// Reads the settings in the file at `path`; keys that it does not have keep their defaults.
///
/// # Errors
/// The file cannot be read, is no TOML, has an unknown key or a value that is not allowed.
pub(super) fn load(path: &Path) -> Result<Settings> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::io(format_args!("read {}", shown(path)), &error))
        .map_err(Failure::into_usage)?;
    parse(&text, &shown(path))
}

fn parse(text: &str, file: &str) -> Result<Settings> {
    let position = |span: Option<Range<usize>>| match span {
        Some(span) => format!("{file}:{}", line_of(text, span.start)),
        None => file.to_owned(),
    };
    let syntax = |error: toml::de::Error| {
        Failure::usage(format_args!(
            "no valid TOML in {}: {}",
            position(error.span()),
            error.message()
        ))
    };
    let tree = DeTable::parse(text).map_err(syntax)?;
    let mut unknown = Vec::new();
    let source = Deserializer::parse(text).map_err(syntax)?;
    let settings = serde_ignored::deserialize(source, |path| unknown.push(path.to_string()));
    let mut settings: Settings = settings.map_err(|error: toml::de::Error| {
        let at = position(error.span());
        let key = error.span().and_then(|span| key_at(tree.get_ref(), &span));
        wrong_value(&at, key.as_deref(), error.message())
    })?;
    if !unknown.is_empty() {
        let found = unknown.iter().map(|path| {
            let at = position(find(tree.get_ref(), path).map(|(key, _)| key));
            let meant = keys::suggest(path);
            let meant = meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
            format!("unknown key `{path}` in {at}{meant}")
        });
        return Err(Failure::usage(found.collect::<Vec<_>>().join("\n  and: ")));
    }
    own_defaults(tree.get_ref(), &mut settings);
    Ok(settings)
}

/// Where the defaults of this program differ from the library's, keys that are not in the file get
/// those of this program.
fn own_defaults(tree: &DeTable<'_>, settings: &mut Settings) {
    let missing = |path| find(tree, path).is_none();
    if missing("server.listen") {
        settings.server.listen = vec![DEFAULT_LISTEN.to_owned()];
    }
    if missing("server.workers") {
        settings.server.workers = Settings::default().server.workers;
    }
    if missing("server.http.messages") {
        settings.server.http.messages = Settings::default().server.http.messages;
    }
}

fn wrong_value(at: &str, key: Option<&str>, message: &str) -> Failure {
    let Some(key) = key else {
        return Failure::usage(format_args!("wrong value in {at}: {message}"));
    };
    // some messages list what is allowed themselves
    let lists = message.contains("allowed are") || message.contains("expected one of");
    let allowed = match keys::allowed(key).filter(|_| !lists) {
        Some(allowed) => format!("; allowed: {allowed}"),
        None => String::new(),
    };
    Failure::usage(format_args!(
        "wrong value for `{key}` in {at}: {message}{allowed}"
    ))
}

/// The line, from 1, of a byte of the text.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Where the key and the value at a path stand.
fn find(table: &DeTable<'_>, path: &str) -> Option<(Range<usize>, Range<usize>)> {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(a, b)| (a, Some(b)));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    match (rest, value.get_ref()) {
        (None, _) => Some((key.span(), value.span())),
        (Some(rest), DeValue::Table(inner)) => find(inner, rest),
        (Some(_), _) => None,
    }
}

/// The path of the key whose value an error is about.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    let holds = |value: &Spanned<DeValue<'_>>| {
        let range = value.span();
        range.start <= span.start && span.end <= range.end
    };
    table.iter().find_map(|(key, value)| match value.get_ref() {
        // the span of a table may be that of its header only
        DeValue::Table(inner) => match key_at(inner, span) {
            Some(rest) => Some(format!("{}.{rest}", key.get_ref())),
            None => holds(value).then(|| key.get_ref().to_string()),
        },
        _ => holds(value).then(|| key.get_ref().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text, "n.toml").unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_named_with_their_path_and_line() {
        assert_eq!(
            error("mode = \"echo\"\n\n[server.session]\nmax_mesage = 1\n"),
            "error: unknown key `server.session.max_mesage` in n.toml:4; \
             did you mean `max_message`? [-1]\n"
        );
        assert_eq!(
            error("workers = 2\nsevrer.listen = []\n"),
            "error: unknown key `sevrer` in n.toml:2; did you mean `server`? [-1]\n  \
             and: unknown key `workers` in n.toml:1; did you mean `server.workers`?\n"
        );
    }

    #[test]
    fn wrong_values_are_named_with_what_is_allowed() {
        for (text, wanted) in [
            (
                "[server]\nworkers = -1",
                ["`server.workers` in n.toml:2", "from 0 to 1024"],
            ),
            (
                "[server]\nworkers = \"two\"",
                ["`server.workers` in n.toml:2", "from 0 to 1024"],
            ),
            (
                "mode = \"eccho\"",
                ["`mode` in n.toml:1", "`echo`, `discard`"],
            ),
            (
                "[server]\n[server.session]\nidle_timeout = 30",
                ["`server.session.idle_timeout` in n.toml:3", "or \"off\""],
            ),
            (
                "server.shutdown_timeout = \"soon\"",
                ["`server.shutdown_timeout` in n.toml:1", "such as \"10s\""],
            ),
            (
                "server.session.framing = \"zip\"",
                [
                    "`server.session.framing` in n.toml:1",
                    "allowed are: length",
                ],
            ),
            (
                "[server.session.outbox]\noverflow = \"burn\"",
                [
                    "`server.session.outbox.overflow` in n.toml:2",
                    "`drop-oldest`",
                ],
            ),
            (
                "[server]\nlisten = [\n 3,\n]",
                ["`server.listen` in n.toml:3", "a list of addresses"],
            ),
            ("server = 3", ["`server` in n.toml:1", "expected struct"]),
        ] {
            let error = error(text);
            for wanted in wanted {
                assert!(error.contains(wanted), "{text}: {error}");
            }
        }
        let error = error("a = 1\nb = = 2");
        assert!(error.contains("no valid TOML in n.toml:2"), "{error}");
    }

    #[test]
    fn keys_that_are_not_there_have_the_defaults() {
        let settings = parse("[server]\nmax_connections = 7", "n.toml").unwrap();
        assert_eq!(settings.server.max_connections, 7);
        assert_eq!(settings.server.workers, 1);
        assert_eq!(settings.server.listen, [DEFAULT_LISTEN]);
        let settings = parse("server.workers = 0\nserver.listen = []", "n.toml").unwrap();
        assert_eq!(
            (settings.server.workers, settings.server.listen.len()),
            (0, 0)
        );
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same() {
        let mut settings = Settings::default();
        settings.server.socket.send_buffer = Some(4096);
        settings.server.session.idle_timeout = None;
        settings.server.session.framing = "delimiter:0d0a".parse().unwrap();
        let text = keys::print(&settings).unwrap();
        let back = parse(&text, "n.toml").unwrap();
        assert_eq!(keys::print(&back).unwrap(), text);
        assert_eq!(format!("{back:?}"), format!("{settings:?}"));
    }
}
