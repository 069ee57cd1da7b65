#include "trainer/health/replicas.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "runtime/checkpoint/checksum.h"
#include "runtime/checkpoint/tensor_checksum.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

// Hexadecimal digits of a checksum.
constexpr size_t kDigits = 16;

std::string HashOf(std::string_view text) {
  Checksum checksum;
  checksum.Update(text);
  return checksum.Result().xxh64;
}

// What this rank holds, by the hash of what it is.
class Held {
 public:
  explicit Held(RankModel& model) {
    Add("", model.ValueParts());
    Add(" (master)", model.MasterParts());
    Add(" (first moment)", model.MomentParts(/*second=*/false));
    Add(" (second moment)", model.MomentParts(/*second=*/true));
    Add(" (average)", model.EmaParts());
  }

  // Pairs of hashes: of what it is, and of its bytes.
  const std::string& hashes() const { return hashes_; }
  // Empty: this rank does not hold it.
  std::string NameOf(const std::string& hash) const {
    const auto found = names_.find(hash);
    return found == names_.end() ? "" : found->second;
  }

 private:
  void Add(std::string_view kind, const std::vector<TensorPart>& parts) {
    for (const TensorPart& part : parts) {
      if (!part.local.defined()) continue;
      const std::string name = part.name + std::string(kind);
      std::string what = fmt::format("{} {} {}", name, part.begin, part.end);
      for (const ShardedDim& shard : part.shards) {
        what += fmt::format(" {} {} {}", shard.dim, shard.parts, shard.index);
      }
      Checksum bytes;
      UpdateWith(part.local, bytes);
      const std::string hash = HashOf(what);
      names_[hash] = name;
      hashes_ += hash + bytes.Result().xxh64;
    }
  }

  std::map<std::string, std::string> names_;
  std::string hashes_;
};

// Ranks, by the hash of the bytes that they hold.
using Holders = std::map<std::string, std::vector<size_t>>;

// Those that do not agree with most of them; all where no value has most.
std::vector<size_t> OddOnes(const Holders& holders) {
  size_t all = 0, most = 0;
  for (const auto& [value, ranks] : holders) {
    all += ranks.size();
    most = std::max(most, ranks.size());
  }
  std::vector<size_t> odd;
  for (const auto& [value, ranks] : holders) {
    if (ranks.size() * 2 > all) continue;
    odd.insert(odd.end(), ranks.begin(), ranks.end());
  }
  std::sort(odd.begin(), odd.end());
  return odd;
}

}  // namespace

absl::Status CompareReplicas(RankModel& model) {
  Control& control = model.context().communicators().control();
  const Held held(model);
  const std::vector<std::string> all =
      control.AllGather(held.hashes(), "hashes of what ranks hold alike");
  std::map<std::string, Holders> tensors;
  for (size_t rank = 0; rank < all.size(); ++rank) {
    CHECK_EQ(all[rank].size() % (2 * kDigits), size_t{0});
    for (size_t i = 0; i < all[rank].size(); i += 2 * kDigits) {
      tensors[all[rank].substr(i, kDigits)]
             [all[rank].substr(i + kDigits, kDigits)]
                 .push_back(rank);
    }
  }
  std::erase_if(tensors,
                [](const auto& entry) { return entry.second.size() == 1; });
  if (tensors.empty()) return absl::OkStatus();
  // Who holds them knows their names.
  std::vector<std::string> own;
  for (const auto& [hash, ranks] : tensors) own.push_back(held.NameOf(hash));
  std::string first;
  Holders holders;
  for (const std::string& told :
       control.AllGather(absl::StrJoin(own, "\n"), "names of unlike tensors")) {
    auto ranks = tensors.begin();
    for (const absl::string_view name : absl::StrSplit(told, '\n')) {
      if (!name.empty() && (first.empty() || name < first)) {
        first = std::string(name);
        holders = ranks->second;
      }
      ++ranks;
    }
  }
  const std::vector<size_t> odd = OddOnes(holders);
  size_t holding = 0;
  for (const auto& [value, ranks] : holders) holding += ranks.size();
  return DataLoss(
      "'{}'{} of rank{} {} differs from what the {} ranks that hold it alike "
      "hold; expected the same bits: memory, a link or arithmetic failed there",
      first,
      tensors.size() > 1 ? fmt::format(" (and {} more)", tensors.size() - 1)
                         : "",
      odd.size() == 1 ? "" : "s", absl::StrJoin(odd, ", "), holding);
}

}  // namespace trireme
