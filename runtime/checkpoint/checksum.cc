#include "runtime/checkpoint/checksum.h"

#include "fmt/format.h"
#include "xxhash.h"

namespace trireme {

struct Checksum::State {
  std::unique_ptr<XXH64_state_t, decltype(&XXH64_freeState)> xxh64{
      XXH64_createState(), &XXH64_freeState};
};

Checksum::Checksum() : state_(std::make_unique<State>()) {
  XXH64_reset(state_->xxh64.get(), 0);
}

Checksum::Checksum(Checksum&&) noexcept = default;
Checksum::~Checksum() = default;

void Checksum::Update(std::string_view bytes) {
  XXH64_update(state_->xxh64.get(), bytes.data(), bytes.size());
  bytes_ += static_cast<int64_t>(bytes.size());
}

CheckpointFile Checksum::Result() const {
  return {.bytes = bytes_,
          .xxh64 = fmt::format("{:016x}", XXH64_digest(state_->xxh64.get()))};
}

}  // namespace trireme
