//! Mathematics: the C functions behind methods of `f32` and `f64`, from the `libm` crate.
//!
//! Rust's own libraries for this target leave these to C. What a program does not call is not linked.

use core::ffi::c_int;

/// Defines each function under its C name, by the function of the same name in `libm`.
macro_rules! functions {
    ($type:ty: $($name:ident($($argument:ident),*);)*) => {$(
        /// C's function of this name.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> $type {
            libm::$name($($argument),*)
        }
    )*};
}

functions! { f64:
    acos(x);
    acosh(x);
    asin(x);
    asinh(x);
    atan(x);
    atanh(x);
    cbrt(x);
    ceil(x);
    cos(x);
    cosh(x);
    erf(x);
    erfc(x);
    exp(x);
    exp10(x);
    exp2(x);
    expm1(x);
    fabs(x);
    floor(x);
    log(x);
    log10(x);
    log1p(x);
    log2(x);
    rint(x);
    round(x);
    roundeven(x);
    sin(x);
    sinh(x);
    sqrt(x);
    tan(x);
    tanh(x);
    trunc(x);
    tgamma(x);
    lgamma(x);
    atan2(x, y);
    copysign(x, y);
    fdim(x, y);
    fmax(x, y);
    fmin(x, y);
    fmod(x, y);
    hypot(x, y);
    nextafter(x, y);
    pow(x, y);
    remainder(x, y);
    fma(x, y, z);
}

functions! { f32:
    acosf(x);
    acoshf(x);
    asinf(x);
    asinhf(x);
    atanf(x);
    atanhf(x);
    cbrtf(x);
    ceilf(x);
    cosf(x);
    coshf(x);
    erff(x);
    erfcf(x);
    expf(x);
    exp10f(x);
    exp2f(x);
    expm1f(x);
    fabsf(x);
    floorf(x);
    logf(x);
    log10f(x);
    log1pf(x);
    log2f(x);
    rintf(x);
    roundf(x);
    roundevenf(x);
    sinf(x);
    sinhf(x);
    sqrtf(x);
    tanf(x);
    tanhf(x);
    truncf(x);
    tgammaf(x);
    lgammaf(x);
    atan2f(x, y);
    copysignf(x, y);
    fdimf(x, y);
    fmaxf(x, y);
    fminf(x, y);
    fmodf(x, y);
    hypotf(x, y);
    nextafterf(x, y);
    powf(x, y);
    remainderf(x, y);
    fmaf(x, y, z);
}

/// `x × 2^exponent`.
#[unsafe(no_mangle)]
extern "C" fn ldexp(x: f64, exponent: c_int) -> f64 {
    libm::ldexp(x, exponent)
}

/// `x × 2^exponent`.
#[unsafe(no_mangle)]
extern "C" fn ldexpf(x: f32, exponent: c_int) -> f32 {
    libm::ldexpf(x, exponent)
}

/// The logarithm of gamma's absolute value; gamma's sign to `*sign`.
///
/// # Safety
/// C's: `sign` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn lgamma_r(x: f64, sign: *mut c_int) -> f64 {
    let (value, gamma_sign) = libm::lgamma_r(x);
    // SAFETY: the caller's promise.
    unsafe { sign.write(gamma_sign) };
    value
}

/// The logarithm of gamma's absolute value; gamma's sign to `*sign`.
///
/// # Safety
/// C's: `sign` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn lgammaf_r(x: f32, sign: *mut c_int) -> f32 {
    let (value, gamma_sign) = libm::lgammaf_r(x);
    // SAFETY: the caller's promise.
    unsafe { sign.write(gamma_sign) };
    value
}
