import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RemoteProtocolError
from engine.lab import sip
from engine.lab.sip import Challenge, Request, Response

INVITE = (
    b"INVITE sip:operator@127.0.0.1:5080 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 127.0.0.1:5070;rport;branch=z9hG4bKabc\r\n"
    b'f: "Anna" <sip:anna@127.0.0.1>;tag=one\r\n'
    b"t: <sip:operator@127.0.0.1>\r\n"
    b"m: <sip:asterisk@127.0.0.1:5070>\r\n"
    b"Call-ID: 12\r\n"
    b"CSEQ: 7 INVITE\r\n"
    b"Subject: folded\r\n over two lines\r\n"
    b"l: 4\r\n\r\nbodyand what is too much"
)

names = st.sampled_from(["Via", "From", "To", "Call-ID", "X-Note", "Route"])
values = st.text(
    alphabet=string.ascii_letters + string.digits + ' <>";=:@,.é', min_size=1, max_size=40
).map(str.strip)
headers = st.lists(st.tuples(names, values), max_size=8).map(tuple)


def parsed_request(data: bytes) -> Request:
    message = sip.parse(data)
    assert isinstance(message, Request)
    return message


def test_request_with_compact_names_folding_and_a_counted_body() -> None:
    invite = parsed_request(INVITE)
    assert (invite.method, invite.uri) == ("INVITE", "sip:operator@127.0.0.1:5080")
    assert invite.get("from") == '"Anna" <sip:anna@127.0.0.1>;tag=one'
    assert invite.get("contact") == "<sip:asterisk@127.0.0.1:5070>"
    assert invite.get("Subject") == "folded over two lines"
    assert invite.cseq == (7, "INVITE")
    assert invite.body == b"body"


@given(headers, st.binary(max_size=100))
def test_built_requests_are_parsed(items: sip.Headers, body: bytes) -> None:
    request = Request(items, body, "INVITE", "sip:900@127.0.0.1")
    assert sip.parse(request.build()) == request


@given(headers, st.binary(max_size=100), st.integers(100, 699))
def test_built_responses_are_parsed(items: sip.Headers, body: bytes, status: int) -> None:
    response = Response(items, body, status, "As It Is")
    assert sip.parse(response.build()) == response


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: INVITE[:300] + tail))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        message = sip.parse(data)
    except RemoteProtocolError:
        return
    assert isinstance(message, Request | Response)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"INVITE sip:a@b SIP/2.0\r\n",
        b"INVITE sip:a@b SIP/1.0\r\n\r\n",
        b"INVITE SIP/2.0\r\n\r\n",
        b"SIP/2.0 two OK\r\n\r\n",
        b"SIP/2.0 700 OK\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\n folded\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nno colon\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n",
        b"OPTIONS sip:a SIP/2.0\r\nContent-Length: 5\r\n\r\nfour",
        b"OPTIONS sip:a SIP/2.0\r\nX: \xff\r\n\r\n",
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        sip.parse(data)


@pytest.mark.parametrize("cseq", ["", "INVITE", "x INVITE", "7"])
def test_a_cseq_that_cannot_be_read(cseq: str) -> None:
    with pytest.raises(RemoteProtocolError):
        _ = Request((("CSeq", cseq),), b"", "INVITE", "sip:a").cseq


def test_a_reply_mirrors_and_adds_its_tag_once() -> None:
    invite = parsed_request(INVITE)
    ringing = sip.reply(invite, 180, to_tag="mine")
    assert ringing.get("To") == "<sip:operator@127.0.0.1>;tag=mine"
    assert ringing.get_all("Via") == invite.get_all("Via")
    assert ringing.cseq == (7, "INVITE")
    assert ringing.build().startswith(b"SIP/2.0 180 Ringing\r\n")
    tagged = Request(
        tuple((n, f"{v};tag=theirs" if n == "To" else v) for n, v in invite.headers),
        b"",
        "BYE",
        invite.uri,
    )
    assert sip.reply(tagged, 200, to_tag="mine").get(
        "To",
    ) == ("<sip:operator@127.0.0.1>;tag=theirs")


@pytest.mark.parametrize(
    ("value", "uri", "tag"),
    [
        ('"A; tag=no" <sip:a@b;x=1>;tag=yes;y=2', "sip:a@b;x=1", "yes"),
        ("<sip:a@b>", "sip:a@b", ""),
        ("sip:a@b;tag=plain", "sip:a@b", "plain"),
        ("<sip:a@b;tag=uri>", "sip:a@b;tag=uri", ""),
    ],
)
def test_addresses(value: str, uri: str, tag: str) -> None:
    assert sip.address_uri(value) == uri
    assert sip.tag(value) == tag


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sip:900@127.0.0.1:5070", ("127.0.0.1", 5070)),
        ("sip:127.0.0.1", ("127.0.0.1", 5060)),
        ("sip:+7916@pbx.example;transport=udp", ("pbx.example", 5060)),
    ],
)
def test_host_port(uri: str, address: tuple[str, int]) -> None:
    assert sip.host_port(uri) == address


@pytest.mark.parametrize("uri", ["", "tel:900", "sip:", "sip:a@[::1]:5060", "sips:a@b"])
def test_other_uris(uri: str) -> None:
    with pytest.raises(RemoteProtocolError):
        sip.host_port(uri)


def test_digest_example_of_rfc_2617() -> None:
    challenge = sip.parse_challenge(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    answer = sip.authorization(
        challenge,
        method="GET",
        uri="/dir/index.html",
        username="Mufasa",
        password="Circle Of Life",
        cnonce="0a4f113b",
    )
    assert 'response="6629fae49393a05397450978507c4ef1"' in answer
    assert "nc=00000001, qop=auth" in answer
    assert 'opaque="5ccc069c403ebaf9f0171e9517f40e41"' in answer


def test_digest_without_qop_is_the_one_of_rfc_2069() -> None:
    challenge = sip.parse_challenge(
        'Digest realm="testrealm@host.com",nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",algorithm=md5'
    )
    assert challenge == Challenge("testrealm@host.com", "dcd98b7102dd2f0e8b11d0f600bfb0c093")
    answer = sip.authorization(
        challenge, method="GET", uri="/dir/index.html", username="Mufasa", password="Circle Of Life"
    )
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in answer
    assert "qop" not in answer


@pytest.mark.parametrize(
    "value",
    [
        'Basic realm="a"',
        'Digest realm="a"',
        'Digest realm="a", nonce="b", algorithm=SHA-256',
        'Digest realm="a", nonce="b", qop="auth-int"',
    ],
)
def test_challenges_we_do_not_answer(value: str) -> None:
    with pytest.raises(RemoteProtocolError):
        sip.parse_challenge(value)
