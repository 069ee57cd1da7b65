#include "trainer/job/agreement.h"

#include <dirent.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "nlohmann/json.hpp"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/philox.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::TextFormat;

// Names and values in a fixed order: of fields those that are set.
using Facts = std::vector<std::pair<std::string, std::string>>;

constexpr int64_t kMaxManifestBytes = int64_t{64} << 20;
// What a file that one host wrote may take to be seen by another: clients of
// NFS may trust for a minute (acdirmax) what they remember of a folder.
constexpr std::chrono::seconds kLocalPatience(1);
constexpr std::chrono::seconds kNetworkPatience(70);
constexpr std::chrono::seconds kSilentWait(3);
// Between two looks, each of which asks a server.
constexpr std::chrono::milliseconds kFirstPause(50);
constexpr std::chrono::milliseconds kLongestPause(2000);
// Types of file systems (statfs) that no other machine writes to: of ext2 to
// ext4, XFS, Btrfs, F2FS, tmpfs, ramfs and overlays.
constexpr std::array<uint32_t, 7> kLocalFileSystems = {
    0xef53,     0x58465342, 0x9123683e, 0xf2f52010,
    0x01021994, 0x858458f6, 0x794c7630};

void AddFields(const Message& message, const std::string& prefix,
               Facts& facts) {
  const auto* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string name = prefix + field->name();
    if (!field->is_repeated() &&
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      AddFields(reflection->GetMessage(message, field), name + ".", facts);
      continue;
    }
    const int count =
        field->is_repeated() ? reflection->FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      std::string value;
      TextFormat::PrintFieldValueToString(
          message, field, field->is_repeated() ? i : -1, &value);
      facts.emplace_back(
          field->is_repeated() ? fmt::format("{}({})", name, i) : name,
          std::move(value));
    }
  }
}

void AddDataset(const Dataset& dataset, Facts& facts) {
  facts.emplace_back("data set: samples", fmt::format("{}", dataset.size()));
  facts.emplace_back("data set: classes",
                     fmt::format("{}", dataset.num_classes()));
  for (int64_t i = 0; i < dataset.num_classes(); ++i) {
    facts.emplace_back(fmt::format("data set: class {}", i),
                       dataset.class_name(i));
  }
  facts.emplace_back("data set: checksum of its index",
                     fmt::format("{:016x}", dataset.IndexHash()));
}

Facts FactsOf(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, false);
  CHECK(json.is_array()) << text;
  return json.get<Facts>();
}

absl::Status Compare(const Facts& found, const Facts& expected) {
  const std::map<std::string, std::string> by_name(found.begin(), found.end());
  const auto differ = [](const std::string& name, const std::string& value,
                         const std::string& wanted) {
    return FailedPrecondition("{}: found {}, expected {}, as on rank 0", name,
                              value, wanted);
  };
  for (const auto& [name, value] : expected) {
    const auto own = by_name.find(name);
    if (own == by_name.end()) return differ(name, "nothing", value);
    if (own->second != value) return differ(name, own->second, value);
  }
  const std::map<std::string, std::string> theirs(expected.begin(),
                                                  expected.end());
  for (const auto& [name, value] : found) {
    if (!theirs.contains(name)) return differ(name, value, "nothing");
  }
  return absl::OkStatus();
}

// Whether the file is there. Opening the folders above it has a client of NFS
// ask its server whether what it remembers of them is still true.
bool IsSeen(const std::filesystem::path& path) {
  std::filesystem::path above;
  for (const auto& part : path.parent_path()) {
    above /= part;
    // One that may be passed through only cannot be read.
    DIR* const folder = opendir(above.c_str());
    if (folder == nullptr) continue;
    (void)readdir(folder);
    closedir(folder);
  }
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// A hash that a double holds exactly.
double HashOf(std::span<const int64_t> samples) {
  const std::string_view bytes(reinterpret_cast<const char*>(samples.data()),
                               samples.size_bytes());
  return static_cast<double>(StableHash(bytes) >> 12);
}

}  // namespace

absl::Status AgreeOnJob(Control& control, const Job& job, const Plan& plan,
                        const Dataset& dataset, const Dataset* held_out) {
  Facts facts;
  AddFields(job, "job.", facts);
  AddFields(plan, "plan.", facts);
  AddDataset(dataset, facts);
  if (held_out != nullptr) {
    facts.emplace_back("held-out samples: checksum of their index",
                       fmt::format("{:016x}", held_out->IndexHash()));
  }
  // Names of classes may be any bytes: both sides compare what JSON makes of
  // them.
  const std::string own =
      nlohmann::json(facts).dump(-1, ' ', /*ensure_ascii=*/false,
                                 nlohmann::json::error_handler_t::replace);
  std::string expected = own;
  control.Broadcast(expected, "rank 0's job");
  return control.Agree(Compare(FactsOf(own), FactsOf(expected)),
                       "comparing the ranks' jobs");
}

absl::StatusOr<std::optional<std::string>> AgreeOnCheckpoint(
    Control& control, const std::string& folder,
    const std::optional<std::string>& chosen) {
  const auto manifest_of = [](const std::string& checkpoint) {
    return ReadFile(checkpoint + "/manifest.json", kMaxManifestBytes);
  };
  // The folder's name, a line's end, and the manifest, which has the checksums
  // of all files.
  std::string choice;
  absl::Status status;
  if (control.rank() == 0 && chosen.has_value()) {
    const absl::StatusOr<std::string> manifest = manifest_of(*chosen);
    status = manifest.status();
    if (status.ok()) {
      choice = fmt::format("{}\n{}",
                           std::filesystem::path(*chosen).filename().string(),
                           *manifest);
    }
  }
  RETURN_IF_ERROR(control.Agree(status, "rank 0's checkpoint"));
  control.Broadcast(choice, "rank 0's checkpoint");
  if (choice.empty()) return std::nullopt;
  const size_t end = choice.find('\n');
  const std::string checkpoint = folder + "/" + choice.substr(0, end);
  if (control.rank() != 0) {
    const absl::StatusOr<std::string> manifest = manifest_of(checkpoint);
    if (!manifest.ok()) {
      status = WithContext(manifest.status(), "rank 0's checkpoint");
    } else if (*manifest != choice.substr(end + 1)) {
      status = FailedPrecondition(
          "{}/manifest.json: found another checkpoint of that step, expected "
          "rank 0's",
          checkpoint);
    }
  }
  RETURN_IF_ERROR(control.Agree(status, "comparing checkpoints"));
  return checkpoint;
}

std::chrono::seconds PatienceWithFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::path there = std::filesystem::absolute(folder, error);
  struct statfs system {};
  while (statfs(there.c_str(), &system) != 0) {
    if (!there.has_relative_path()) return kNetworkPatience;
    there = there.parent_path();
  }
  const bool local =
      std::find(kLocalFileSystems.begin(), kLocalFileSystems.end(),
                static_cast<uint32_t>(system.f_type)) !=
      kLocalFileSystems.end();
  return local ? kLocalPatience : kNetworkPatience;
}

absl::Status AgreeOnRunFolder(Control& control, const std::string& folder,
                              const std::string& host,
                              std::chrono::milliseconds patience) {
  if (control.size() == 1) return absl::OkStatus();
  // A name that nobody has asked for before: a network's file system would
  // answer from its memory.
  std::string name = fmt::format(
      ".rank_0_{:x}_{}",
      std::chrono::system_clock::now().time_since_epoch().count(), getpid());
  std::string of_first = fmt::format("{} on {}", folder, host);
  control.Broadcast(name, "the run's folder");
  control.Broadcast(of_first, "the run's folder");
  const std::string path = folder + "/" + name;
  absl::Status status;
  if (control.rank() == 0) {
    status = MakeDirectories(folder);
    if (status.ok()) status = WriteFileAtomically(path, "");
  }
  RETURN_IF_ERROR(control.Agree(status, "the run's folder"));
  const auto begin = std::chrono::steady_clock::now();
  bool found = false, told = control.rank() != 0;
  // Each look is the ranks' together: none of them is waited for that has seen
  // it, nor is the collective's deadline passed.
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    const auto waited = std::chrono::steady_clock::now() - begin;
    found = found || IsSeen(path);
    std::array<int64_t, 1> any = {!found && waited < patience};
    control.Max(std::span(any), "the run's folder");
    if (any[0] == 0) break;
    if (!told && waited > kSilentWait) {
      told = true;
      fmt::print(
          "waits until all hosts see the run's folder, which may take a minute "
          "on a network's file system\n");
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(pause);
  }
  if (!found) {
    status = FailedPrecondition(
        "--out: found another folder at {} on {} than at {}, where rank 0 is; "
        "expected one that all hosts see, as on a shared file system: each "
        "rank writes its part of a checkpoint there",
        folder, host, of_first);
  }
  status = control.Agree(status, "the run's folder");
  std::error_code error;
  if (control.rank() == 0) std::filesystem::remove(path, error);
  return status;
}

absl::Status AgreeOnSamples(Control& control, std::span<const int64_t> used,
                            int64_t first, int64_t global_batch,
                            int64_t slices) {
  CHECK_EQ(global_batch % slices, 0);
  const int64_t count = global_batch / slices;
  CHECK(first % count == 0 && used.size() % count == 0) << first;
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  // Of each slice the largest hash and the negative of the smallest.
  std::vector<double> bounds(2 * slices, kNone);
  for (size_t begin = 0; begin < used.size(); begin += count) {
    const int64_t slice = (first + static_cast<int64_t>(begin)) / count;
    const double hash = HashOf(used.subspan(begin, count));
    bounds[2 * slice] = hash;
    bounds[2 * slice + 1] = -hash;
  }
  std::vector<double> of_all = bounds;
  control.Max(std::span(of_all), "consumed samples");
  bool agreed = true;
  for (int64_t slice = 0; slice < slices; ++slice) {
    // Of a slice that no rank has there is nothing to compare.
    if (of_all[2 * slice] == kNone) continue;
    agreed = agreed && of_all[2 * slice] == -of_all[2 * slice + 1];
  }
  if (agreed) return absl::OkStatus();
  // Everyone knows by now; who differs from whom takes another exchange.
  const std::vector<std::string> lists = control.AllGather(
      nlohmann::json{{"first", first},
                     {"used", std::vector<int64_t>(used.begin(), used.end())}}
          .dump(),
      "consumed samples of all");
  std::map<int64_t, std::pair<int, int64_t>> seen;
  for (int rank = 0; rank < control.size(); ++rank) {
    const auto list = nlohmann::json::parse(lists[rank]);
    int64_t place = list["first"];
    for (const int64_t sample : list["used"]) {
      const auto [entry, is_new] = seen.try_emplace(place, rank, sample);
      if (!is_new && entry->second.second != sample) {
        return FailedPrecondition(
            "rank {} used sample {} at place {} of the batch, where rank {} "
            "used {}; expected the same data on all ranks",
            rank, sample, place, entry->second.first, entry->second.second);
      }
      ++place;
    }
  }
  return FailedPrecondition(
      "the ranks used unlike samples, expected the same data on all ranks");
}

}  // namespace trireme
