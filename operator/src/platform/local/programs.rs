//! Which program of this machine stands for a container image.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Images whose program is not called like them.
const PROGRAMS: [(&str, &str); 2] = [("kafka", "kafka-server"), ("nats", "nats-server")];

/// The name of the program in an image: `apache/kafka:4.3.1` has `kafka-server`.
#[must_use]
pub fn program_of_image(image: &str) -> &str {
    let without_digest = image.split('@').next().unwrap_or(image);
    let base = without_digest.rsplit('/').next().unwrap_or(without_digest);
    let base = base.split(':').next().unwrap_or(base);
    let known = PROGRAMS.iter().find(|(name, _)| *name == base);
    known.map_or(base, |(_, program)| program)
}

/// Where programs are looked for: PATH, then beside the operator, then where `e2e/tools/setup` installs.
#[must_use]
pub fn search_path() -> OsString {
    let mut directories: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    directories.extend(
        env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned)),
    );
    let cache = env::var_os("OFA_CACHE").map(PathBuf::from).or_else(|| {
        env::var_os("HOME").map(|home| Path::new(&home).join(".cache/openfactory-fanout"))
    });
    directories.extend(cache.map(|cache| cache.join("bin")));
    env::join_paths(directories).unwrap_or_else(|_| env::var_os("PATH").unwrap_or_default())
}

/// The executable file `program` stands for.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return is_executable(Path::new(program)).then(|| PathBuf::from(program));
    }
    env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_names_the_program() {
        for (image, program) in [
            ("apache/kafka:4.3.1", "kafka-server"),
            ("nats:2.15.2", "nats-server"),
            ("registry:5000/library/nats@sha256:00ff", "nats-server"),
            ("openfactory-fanout/forwarder", "forwarder"),
            ("ofa", "ofa"),
        ] {
            assert_eq!(program_of_image(image), program);
        }
    }
}
