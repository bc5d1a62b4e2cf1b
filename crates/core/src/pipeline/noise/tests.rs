//! The bytes in `docs/PROTOCOL.md`, which another implementation has made, are ours.

use super::*;

/// The frames of the example, and whose they are.
fn frames() -> Vec<(char, Vec<u8>)> {
    let text = include_str!("../../../../../docs/PROTOCOL.md");
    let block = text.split("```text noise\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let frame = |line: &str| {
        let digits = line[1..].split('#').next().unwrap().split_whitespace();
        let bytes = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap());
        (line.chars().next().unwrap(), bytes.collect())
    };
    block.lines().map(frame).collect()
}

/// One side of the example, with its fixed ephemeral key.
fn side(client: bool, prologue: &[u8]) -> HandshakeState {
    let pattern = network_system_wire::pipeline::Pattern::NNpsk0;
    let key = if client { [0x44; 32] } else { [0x55; 32] };
    let builder = Builder::new(pattern.protocol().parse().unwrap());
    let builder = builder.psk(0, &[0x33; 32]).unwrap();
    let builder = builder.prologue(prologue).unwrap();
    let builder = builder.fixed_ephemeral_key_for_testing_only(&key);
    match client {
        true => builder.build_initiator().unwrap(),
        false => builder.build_responder().unwrap(),
    }
}

fn cipher(state: HandshakeState) -> Cipher {
    Cipher {
        state: Box::new(state.into_transport_mode().unwrap()),
        messages: 0,
        bytes: 0,
        limits: (u64::MAX, u64::MAX),
    }
}

fn seal(cipher: &mut Cipher, header: Header, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (plain, header) = (&mut Vec::new(), header);
    cipher.seal(header, body, plain, &mut frame).unwrap();
    frame
}

fn open(cipher: &mut Cipher, frame: &[u8]) -> Result<(Header, Vec<u8>)> {
    let mut body = Vec::new();
    let header = cipher.open(frame, &mut Vec::new(), &mut body)?;
    Ok((header, body))
}

/// Both sides of the example, after its handshake.
fn pair() -> (Cipher, Cipher) {
    let frames = frames();
    let prologue = [&frames[0].1[..], &frames[1].1].concat();
    let (mut client, mut server) = (side(true, &prologue), side(false, &prologue));
    let mut message = vec![0; MAX_HANDSHAKE];
    let mut payload = vec![0; MAX_HANDSHAKE];
    let n = client.write_message(&[], &mut message).unwrap();
    assert_eq!(message[..n], frames[2].1);
    server.read_message(&message[..n], &mut payload).unwrap();
    let n = server.write_message(&[], &mut message).unwrap();
    assert_eq!(message[..n], frames[3].1);
    client.read_message(&message[..n], &mut payload).unwrap();
    (cipher(client), cipher(server))
}

#[test]
fn the_documented_frames_are_ours() {
    let frames = frames();
    assert_eq!(frames.len(), 9);
    let (mut client, mut server) = pair();
    let plain = Header::default();
    assert_eq!(seal(&mut client, plain, b"hello"), frames[4].1);
    assert_eq!(open(&mut server, &frames[4].1).unwrap().1, b"hello");
    assert_eq!(seal(&mut server, plain, b"hello"), frames[5].1);
    client.limits.0 = client.messages + 1;
    assert_eq!(seal(&mut client, plain, b"again"), frames[6].1);
    let (header, body) = open(&mut server, &frames[6].1).unwrap();
    assert!(header.rekey && body == b"again");
    assert_eq!(seal(&mut client, plain, b"hello"), frames[7].1);
    assert_eq!(open(&mut server, &frames[7].1).unwrap().1, b"hello");
    let goodbye = Header {
        goodbye: true,
        ..plain
    };
    assert_eq!(seal(&mut client, goodbye, b""), frames[8].1);
    assert!(open(&mut server, &frames[8].1).unwrap().0.goodbye);
}

/// Records cannot be moved, left out, repeated, or put into other frames.
#[test]
fn a_frame_is_whole_or_wrong() {
    let large = vec![7; 3 * MAX_CHUNK];
    let frame = |change: &dyn Fn(&mut Vec<u8>)| {
        let (mut client, mut server) = pair();
        let mut frame = seal(&mut client, Header::default(), &large);
        assert_eq!(frame.len(), 3 * MAX_RECORD);
        change(&mut frame);
        open(&mut server, &frame).map(|(_, body)| body == large)
    };
    assert!(frame(&|_| ()).unwrap());
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let changes: [(&str, Change<'_>); 9] = [
        ("cut between records", &|f| f.truncate(MAX_RECORD)),
        ("cut in a record", &|f| f.truncate(MAX_RECORD + 20)),
        ("swapped", &|f| f.rotate_left(MAX_RECORD)),
        ("flipped", &|f| f[70_000] ^= 1),
        ("flipped header", &|f| f[0] ^= 0x10),
        ("one more", &|f| f.extend_from_within(..MAX_RECORD)),
        ("a byte more", &|f| f.push(0)),
        ("nothing but a tag", &|f| f.truncate(16)),
        ("less than a tag", &|f| f.truncate(3)),
    ];
    for (name, change) in changes {
        let error = frame(change).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{name}: {error}");
    }
    // two frames as one
    let (mut client, mut server) = pair();
    let mut two = seal(&mut client, Header::default(), &large);
    two.extend(seal(&mut client, Header::default(), b"x"));
    assert!(open(&mut server, &two).is_err());
}
