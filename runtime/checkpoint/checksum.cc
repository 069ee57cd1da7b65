#include "runtime/checkpoint/checksum.h"

#include "fmt/format.h"
#include "xxhash.h"

namespace trireme {

struct Xxh64::State {
  std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> xxh64{
      XXH64_createState(), &XXH64_freeState};
};

Xxh64::Xxh64() : state_(std::make_unique<State>()) {
  XXH64_reset(state_->xxh64.get(), 0);
}

Xxh64::Xxh64(Xxh64&&) noexcept = default;
Xxh64& Xxh64::operator=(Xxh64&&) noexcept = default;
Xxh64::~Xxh64() = default;

void Xxh64::Update(std::string_view bytes) {
  XXH64_update(state_->xxh64.get(), bytes.data(), bytes.size());
}

std::string Xxh64::Digits() const {
  return fmt::format("{:016x}", XXH64_digest(state_->xxh64.get()));
}

void Checksum::Update(std::string_view bytes) {
  while (!bytes.empty()) {
    const int64_t room = kChecksumPieceBytes - bytes_ % kChecksumPieceBytes;
    const std::string_view part = bytes.substr(0, room);
    whole_.Update(part);
    piece_.Update(part);
    bytes_ += static_cast<int64_t>(part.size());
    bytes.remove_prefix(part.size());
    if (bytes_ % kChecksumPieceBytes == 0) {
      pieces_ += piece_.Digits();
      piece_ = Xxh64();
    }
  }
}

CheckpointFile Checksum::Result() const {
  CheckpointFile file = {.bytes = bytes_, .xxh64 = whole_.Digits()};
  if (bytes_ <= kChecksumPieceBytes) return file;
  file.pieces = pieces_;
  if (bytes_ % kChecksumPieceBytes != 0) file.pieces += piece_.Digits();
  return file;
}

}  // namespace trireme
