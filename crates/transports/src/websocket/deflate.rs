//! What both sides agree on about permessage-deflate (RFC 7692).

use network_system_core::config::Deflate;
use sockudo_ws::DeflateWindowBits as Bits;
use sockudo_ws::deflate::{
    DeflateConfig, DeflateNegotiation, negotiate_server_deflate, parse_deflate_offer,
};

/// A server's choice among a client's offers.
pub(super) fn choose(offers: &str, settings: &Deflate) -> Option<DeflateNegotiation> {
    negotiate_server_deflate(offers, &config(settings))
}

fn config(settings: &Deflate) -> DeflateConfig {
    // settings have been checked
    let bits = |n: u8| Bits::try_from(n).unwrap_or(Bits::Bits15);
    DeflateConfig {
        server_max_window_bits: bits(settings.server_window_bits),
        client_max_window_bits: bits(settings.client_window_bits),
        server_no_context_takeover: !settings.server_context_takeover,
        client_no_context_takeover: !settings.client_context_takeover,
        compression_level: settings.level,
        compression_threshold: settings.threshold,
    }
}

/// A client's offer.
pub(super) fn offer(settings: &Deflate) -> String {
    let mut offer = String::from("permessage-deflate; client_max_window_bits");
    if settings.client_window_bits < 15 {
        offer += &format!("={}", settings.client_window_bits);
    }
    if settings.server_window_bits < 15 {
        offer += &format!("; server_max_window_bits={}", settings.server_window_bits);
    }
    if !settings.server_context_takeover {
        offer += "; server_no_context_takeover";
    }
    if !settings.client_context_takeover {
        offer += "; client_no_context_takeover";
    }
    offer
}

/// What a server has made of a client's offer.
///
/// # Errors
/// It is none of what was offered.
pub(super) fn accept(answer: &str, settings: Option<&Deflate>) -> Result<DeflateConfig, String> {
    let wrong = |why: &str| format!("the server has answered '{answer}': {why}");
    let settings = settings.ok_or_else(|| wrong("no extension was offered"))?;
    let parameters = parse_deflate_offer(answer).ok_or_else(|| wrong("that was not offered"))?;
    let agreed = DeflateConfig::from_params(&parameters);
    let agreed = agreed.map_err(|error| wrong(&error.to_string()))?;
    let ours = config(settings);
    if agreed.server_max_window_bits > ours.server_max_window_bits
        || agreed.client_max_window_bits > ours.client_max_window_bits
            && parameters
                .iter()
                .any(|(name, _)| *name == "client_max_window_bits")
    {
        return Err(wrong("its window is larger than was offered"));
    }
    if ours.server_no_context_takeover && !agreed.server_no_context_takeover {
        return Err(wrong("it keeps a context that it was asked not to keep"));
    }
    Ok(DeflateConfig {
        // a client may always do with less
        client_max_window_bits: agreed
            .client_max_window_bits
            .min(ours.client_max_window_bits),
        client_no_context_takeover: agreed.client_no_context_takeover
            || ours.client_no_context_takeover,
        compression_level: ours.compression_level,
        compression_threshold: ours.compression_threshold,
        ..agreed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow() -> Deflate {
        Deflate {
            server_window_bits: 10,
            client_window_bits: 12,
            server_context_takeover: false,
            ..Deflate::default()
        }
    }

    #[test]
    fn a_server_narrows_what_is_offered() {
        let chosen = |offers, settings| Some(choose(offers, &settings)?.to_response_header());
        let all = Deflate::default();
        assert_eq!(
            chosen("permessage-deflate; client_max_window_bits", all.clone()).unwrap(),
            "permessage-deflate"
        );
        let answer = chosen("permessage-deflate; client_max_window_bits", narrow()).unwrap();
        for part in [
            "server_max_window_bits=10",
            "client_max_window_bits=12",
            "server_no_context_takeover",
        ] {
            assert!(answer.contains(part), "{answer}");
        }
        // one that cannot be told to take a smaller window
        assert_eq!(chosen("permessage-deflate", narrow()), None);
        // the first that can be had
        let several = "x-other, permessage-deflate; server_max_window_bits=8, permessage-deflate";
        assert_eq!(chosen(several, all.clone()).unwrap(), "permessage-deflate");
        assert_eq!(chosen("permessage-deflate; unknown=1", all), None);
    }

    #[test]
    fn a_client_takes_only_what_it_has_offered() {
        let settings = narrow();
        assert_eq!(
            offer(&settings),
            "permessage-deflate; client_max_window_bits=12; server_max_window_bits=10; \
             server_no_context_takeover"
        );
        let answer = "permessage-deflate; server_no_context_takeover; server_max_window_bits=9";
        let agreed = accept(answer, Some(&settings)).unwrap();
        assert_eq!(agreed.server_max_window_bits, Bits::Bits9);
        assert_eq!(agreed.client_max_window_bits, Bits::Bits12);
        for wrong in [
            "x-other",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10; server_no_context_takeover; unknown",
            "permessage-deflate; server_max_window_bits=10; server_no_context_takeover; client_max_window_bits=13",
            "permessage-deflate; server_max_window_bits=10; server_no_context_takeover, permessage-deflate",
        ] {
            assert!(accept(wrong, Some(&settings)).is_err(), "{wrong}");
        }
        assert!(accept("permessage-deflate", None).is_err());
    }
}
