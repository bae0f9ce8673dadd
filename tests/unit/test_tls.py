"""Certificates from files: what is read, what is kept when the files turn bad, and what each mistake is told."""

from pathlib import Path

import pytest

from pointsman.runtime.channels import ClientTls
from pointsman.runtime.tls import Certificates, ServerTls, TlsError
from tests.identities import Authority

DAY = 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def tls(authority: Authority, **changes: Path) -> ServerTls:
    files = authority.issue("server")
    chosen = {"certificate": files.certificate, "key": files.key, "client_ca": authority.certificate, **changes}
    return ServerTls(**chosen)


def test_a_replaced_certificate_is_the_one_that_counts(authority: Authority) -> None:
    certificates = Certificates(tls(authority))
    assert certificates.seconds_left() == pytest.approx(DAY, abs=60)
    authority.issue("server", days=10)
    assert certificates.seconds_left() == pytest.approx(10 * DAY, abs=60)


def test_an_expired_certificate_is_loaded_and_shows(authority: Authority) -> None:
    wanted = tls(authority)
    authority.issue("server", days=-1)
    assert Certificates(wanted).seconds_left() == pytest.approx(-DAY, abs=60)


def test_bad_files_leave_the_old_certificate_until_they_are_good_again(authority: Authority, tmp_path: Path) -> None:
    certificates = Certificates(tls(authority))
    for damage in (b"nonsense", b""):
        (tmp_path / "server.pem").write_bytes(damage)
        assert certificates.reload_failing()
        assert certificates.seconds_left() == pytest.approx(DAY, abs=60)
    (tmp_path / "server.pem").unlink()
    assert certificates.reload_failing()
    authority.issue("server", days=3)
    assert not certificates.reload_failing()
    assert certificates.seconds_left() == pytest.approx(3 * DAY, abs=60)


def test_what_cannot_be_used_is_named_with_its_file_and_mend(authority: Authority, tmp_path: Path) -> None:
    other = authority.issue("other")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for changes, said in (
        ({"certificate": tmp_path / "none.pem"}, "none.pem: cannot be read"),
        ({"certificate": text}, "text.pem: not a certificate in PEM form"),
        ({"key": text}, "text.pem: not a private key in PEM form"),
        ({"key": other.key}, "other-key.pem: not the key of"),
        ({"client_ca": text}, "text.pem: not a certificate in PEM form"),
    ):
        with pytest.raises(TlsError, match=said):
            Certificates(tls(authority, **changes))


def test_a_client_gives_both_halves_of_its_certificate_or_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="belong together"):
        ClientTls(certificate=tmp_path / "client.pem")
