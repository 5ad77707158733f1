// Package measure predicts the PCRs of a TPM for a machine that boots given programs
// under UEFI, as NitroTPM puts them into attestation documents: what firmware measures
// of each program that it starts (PCR 4) and of Secure Boot (PCR 7), of no driver (PCR 2,
// which therefore has its separator alone), and what systemd-stub measures of a unified kernel image (PCR 11 to 13). Where it cannot
// predict, it refuses.
//
// It follows TCG's "PC Client Platform Firmware Profile", Microsoft's "Windows
// Authenticode Portable Executable Signature Format", EDK II where these leave
// something open, and systemd's "TPM2 PCR Measurements Made by systemd". PCRs are those of
// SHA-384.
package measure
