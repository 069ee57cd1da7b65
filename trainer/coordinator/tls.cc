#include "trainer/coordinator/tls.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdint>
#include <memory>

#include "fmt/format.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

constexpr int64_t kDay = 24 * 60 * 60;
constexpr int64_t kYears = 10;
// The third version, in which certificates have alternative names.
constexpr int64_t kVersion3 = 2;

template <typename T, void (*Free)(T*)>
struct Deleter {
  void operator()(T* object) const { Free(object); }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY, EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509, X509_free>>;
using Extension = std::unique_ptr<X509_EXTENSION,
                                  Deleter<X509_EXTENSION, X509_EXTENSION_free>>;
using Memory = std::unique_ptr<BIO, Deleter<BIO, BIO_free_all>>;

// Null: it failed.
Certificate SelfSigned(EVP_PKEY* key) {
  Certificate certificate(X509_new());
  uint32_t serial = 0;
  X509_NAME* const name =
      certificate ? X509_get_subject_name(certificate.get()) : nullptr;
  const std::string alternative = fmt::format("DNS:{}", kTlsName);
  const Extension names(X509V3_EXT_conf_nid(
      nullptr, nullptr, NID_subject_alt_name, alternative.c_str()));
  const bool made =
      name != nullptr && names != nullptr &&
      RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial)) ==
          1 &&
      X509_set_version(certificate.get(), kVersion3) == 1 &&
      ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()),
                              serial) == 1 &&
      X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kDay) !=
          nullptr &&
      X509_gmtime_adj(X509_getm_notAfter(certificate.get()),
                      kYears * 365 * kDay) != nullptr &&
      X509_NAME_add_entry_by_txt(
          name, "CN", MBSTRING_ASC,
          reinterpret_cast<const unsigned char*>(kTlsName), -1, -1, 0) == 1 &&
      X509_set_issuer_name(certificate.get(), name) == 1 &&
      X509_set_pubkey(certificate.get(), key) == 1 &&
      X509_add_ext(certificate.get(), names.get(), -1) == 1 &&
      X509_sign(certificate.get(), key, EVP_sha256()) > 0;
  return made ? std::move(certificate) : nullptr;
}

std::string TextOf(BIO* memory) {
  char* text = nullptr;
  const auto size = BIO_get_mem_data(memory, &text);
  return size > 0 ? std::string(text, size) : "";
}

}  // namespace

absl::StatusOr<TlsIdentity> NewTlsIdentity() {
  const Key key(EVP_EC_gen("P-256"));
  const Certificate certificate = key ? SelfSigned(key.get()) : nullptr;
  const Memory certificate_text(BIO_new(BIO_s_mem()));
  const Memory key_text(BIO_new(BIO_s_mem()));
  if (certificate == nullptr || certificate_text == nullptr ||
      key_text == nullptr ||
      PEM_write_bio_X509(certificate_text.get(), certificate.get()) != 1 ||
      PEM_write_bio_PrivateKey(key_text.get(), key.get(), nullptr, nullptr, 0,
                               nullptr, nullptr) != 1) {
    return Unavailable("--tls: OpenSSL cannot make a key and a certificate");
  }
  return TlsIdentity{.certificate = TextOf(certificate_text.get()),
                     .private_key = TextOf(key_text.get())};
}

}  // namespace trireme
