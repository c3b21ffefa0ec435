//! Finds Intel's multi-buffer library and writes the few bindings the `ipsec-mb` provider uses.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ipsec_mb)");
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "ipsec-mb")]
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        ipsec_mb::bind();
        println!("cargo::rustc-cfg=ipsec_mb");
    }
}

#[cfg(feature = "ipsec-mb")]
mod ipsec_mb {
    use std::path::{Path, PathBuf};

    const HEADER: &str = "intel-ipsec-mb.h";
    const DIR_VARIABLE: &str = "IPSEC_MB_INCLUDE_DIR";

    pub(crate) fn bind() {
        println!("cargo::rerun-if-env-changed={DIR_VARIABLE}");
        let header = find_header().unwrap_or_else(|| {
            panic!(
                "{HEADER} not found: install Debian's libipsec-mb-dev (1.3 or newer), or set {DIR_VARIABLE} to the \
                 directory that holds it, or build with --no-default-features (portable provider only)"
            )
        });
        println!("cargo::rerun-if-changed={}", header.display());
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("ipsec_mb_ffi.rs");
        bindgen::Builder::default()
            .header(header.to_string_lossy())
            .allowlist_type("IMB_MGR")
            .allowlist_type("IMB_JOB")
            .allowlist_type("gcm_key_data")
            .allowlist_type("gcm_context_data")
            .allowlist_function("alloc_mb_mgr|free_mb_mgr|init_mb_mgr_auto|imb_get_version")
            .default_enum_style(bindgen::EnumVariation::Consts)
            .derive_debug(false)
            .derive_default(false)
            .layout_tests(true)
            .generate_comments(false)
            .generate()
            .unwrap_or_else(|error| panic!("cannot read {} (is libclang-dev installed?): {error}", header.display()))
            .write_to_file(&out)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", out.display()));
        println!("cargo::rustc-link-lib=dylib=IPSec_MB");
    }

    fn find_header() -> Option<PathBuf> {
        let named = std::env::var_os(DIR_VARIABLE).map(PathBuf::from);
        let usual = ["/usr/include", "/usr/local/include"].map(PathBuf::from);
        named.into_iter().chain(usual).map(|dir| Path::new(&dir).join(HEADER)).find(|path| path.is_file())
    }
}
