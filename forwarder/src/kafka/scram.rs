//! SCRAM: proves that one knows a password without sending it (RFC 5802, RFC 7677). Pure but for the nonce.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// Fewer than this many rounds of hashing protect no password (RFC 7677 section 4).
const MIN_ITERATIONS: u32 = 4096;

/// What the hashing is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// One attempt.
pub(super) struct Scram<'a> {
    hash: Hash,
    password: &'a str,
    /// The first message without its prefix, as the proof needs it.
    bare: String,
    nonce: String,
}

/// What is answered to the server's challenge.
pub(super) struct Answer {
    pub(super) message: String,
    pub(super) expected: ServerProof,
}

/// What a server that knows the password will say.
pub(super) struct ServerProof(String);

impl<'a> Scram<'a> {
    pub(super) fn new(hash: Hash, user: &str, password: &'a str) -> Self {
        let nonce = STANDARD.encode(rand::random::<[u8; 24]>());
        Self::with_nonce(hash, user, password, nonce)
    }

    fn with_nonce(hash: Hash, user: &str, password: &'a str, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            password,
            bare: format!("n={user},r={nonce}"),
            nonce,
        }
    }

    /// The first message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// The second message, from the server's challenge.
    pub(super) fn answer(&self, challenge: &[u8]) -> Result<Answer, String> {
        let challenge =
            std::str::from_utf8(challenge).map_err(|_| "the challenge is no text".to_owned())?;
        let field = |name: &str| {
            let mut fields = challenge.split(',');
            let found = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            found.ok_or_else(|| format!("the challenge has no '{name}'"))
        };
        let nonce = field("r")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the challenge answers somebody else".to_owned());
        }
        let salt = STANDARD
            .decode(field("s")?)
            .map_err(|_| "the challenge's salt cannot be read".to_owned())?;
        let iterations = field("i")?.parse().ok().and_then(NonZeroU32::new);
        let iterations = iterations
            .filter(|count| count.get() >= MIN_ITERATIONS)
            .ok_or_else(|| {
                format!("the broker hashes passwords less than {MIN_ITERATIONS} times")
            })?;
        let unproven = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{unproven}", self.bare);
        let (proof, expected) = self.proofs(&salt, iterations, signed.as_bytes());
        Ok(Answer {
            message: format!("{unproven},p={proof}"),
            expected: ServerProof(expected),
        })
    }

    fn proofs(&self, salt: &[u8], iterations: NonZeroU32, signed: &[u8]) -> (String, String) {
        let mut salted = vec![0; self.hash.digest().output_len()];
        pbkdf2::derive(
            self.hash.pbkdf2(),
            iterations,
            salt,
            self.password.as_bytes(),
            &mut salted,
        );
        let sign = |key: &[u8], message: &[u8]| {
            hmac::sign(&hmac::Key::new(self.hash.hmac(), key), message)
        };
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(self.hash.digest(), client_key.as_ref());
        let signature = sign(stored_key.as_ref(), signed);
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = sign(&salted, b"Server Key");
        let server = sign(server_key.as_ref(), signed);
        (STANDARD.encode(proof), STANDARD.encode(server))
    }
}

impl ServerProof {
    /// Compares with what the server said in the end.
    pub(super) fn verify(&self, last: &[u8]) -> Result<(), String> {
        let said = std::str::from_utf8(last).unwrap_or_default();
        let said = said.split(',').find_map(|field| field.strip_prefix("v="));
        if said == Some(&self.0) {
            Ok(())
        } else {
            Err("the broker does not know the password itself".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard_comes_out() {
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let scram = Scram::with_nonce(Hash::Sha256, "user", "pencil", nonce);
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let answer = scram.answer(challenge.as_bytes()).unwrap();
        assert_eq!(
            answer.message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        answer.expected.verify(proof).unwrap();
        assert!(answer.expected.verify(b"v=AAAA").is_err());
    }

    #[test]
    fn a_challenge_that_is_not_for_us_is_refused() {
        let scram = Scram::with_nonce(Hash::Sha512, "u", "p", "mine".to_owned());
        for challenge in [
            &b"r=other1,s=AAAA,i=4096"[..],
            b"r=mine,s=AAAA,i=4096",
            b"r=mine1,s=AAAA,i=1",
            b"r=mine1,i=4096",
            b"r=mine1,s=!,i=4096",
            b"\xff",
        ] {
            assert!(scram.answer(challenge).is_err());
        }
    }
}
