//! Who the server is: a certificate chain and its private key.

use fata::Block;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// More PEM text than any chain needs, and little enough for a small machine.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A certificate chain, the server's own first, and the private key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Reads PEM text from the start of `disk`; it ends at the first zero byte.
pub async fn from_disk(disk: &Block) -> Result<Identity, String> {
    let geometry = disk.geometry();
    let sectors = (TEXT_BYTES_MAX / geometry.sector_bytes).min(geometry.sector_count as usize);
    let data = disk.read(0, sectors).await.map_err(|error| format!("disk `identity`: {error}"))?;
    let len = data.iter().position(|&byte| byte == 0).unwrap_or(data.len());
    from_pem(&data[..len]).map_err(|error| format!("disk `identity`: {error}"))
}

fn from_pem(text: &[u8]) -> Result<Identity, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("a certificate does not parse as PEM: {error}"))?;
    if chain.is_empty() {
        return Err("there is no certificate on it; put PEM text at its start".to_string());
    }
    let key = PrivateKeyDer::from_pem_slice(text)
        .map_err(|error| format!("there is no private key on it that parses as PEM: {error}"))?;
    Ok(Identity { chain, key })
}

/// Makes a key and a certificate for `hostname` that nobody else has signed.
pub fn self_signed(hostname: &str) -> Result<Identity, String> {
    let names = vec![hostname.to_string()];
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| format!("argument `--hostname={hostname}`: {error}"))?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    Ok(Identity { chain: vec![made.cert.der().clone()], key })
}
