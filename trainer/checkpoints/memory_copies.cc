#include "trainer/checkpoints/memory_copies.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/checkpoint/file_exchange.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "runtime/device/arena.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kSetKey[] = "memory_set";

std::unique_ptr<Communicator> Everyone(CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return factory.Create(ranks, "memory copies");
}

std::string HashOf(std::string_view text) {
  Checksum checksum;
  checksum.Update(text);
  return checksum.Result().xxh64;
}

absl::Status ErrorOf(std::string_view action, const std::string& path,
                     const std::error_code& error) {
  if (!error) return absl::OkStatus();
  return Unavailable("{}: cannot {}: {}", path, action, error.message());
}

// The inverse of SetMetadata; nothing of what is none.
std::optional<CheckpointFiles> ParseSet(const std::string& text) {
  const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_object()) return std::nullopt;
  CheckpointFiles files;
  for (const auto& [name, file] : list.items()) {
    if (name.find('/') != std::string::npos || !file.is_array() ||
        file.size() != 3 || !file[0].is_number_unsigned() ||
        !file[1].is_string() || !file[2].is_string()) {
      return std::nullopt;
    }
    files[name] = {.bytes = file[0].get<int64_t>(),
                   .xxh64 = file[1].get<std::string>(),
                   .pieces = file[2].get<std::string>()};
  }
  return files;
}

// Copies of one step differ where the run came to it in two ways.
struct Candidate {
  int64_t step = 0;
  std::string set;  // a hash
  auto operator<=>(const Candidate&) const = default;
};

}  // namespace

std::pair<std::string, std::string> SetMetadata(const CheckpointFiles& files) {
  Json list = Json::object();
  for (const auto& [name, file] : files) {
    list[name] = {file.bytes, file.xxh64, file.pieces};
  }
  return {kSetKey, list.dump()};
}

MemoryCopies::MemoryCopies(CommunicatorFactory& factory, Control& control,
                           const MemoryCopiesOptions& options)
    : options_(options),
      hosts_(HostLayout::Gather(control, options.host)),
      prefix_(fmt::format("trireme-{}-", HashOf(options.run_folder))),
      folder_(fmt::format("{}/{}{}-{}", options.root, prefix_, options.id,
                          options.host)),
      messages_(Everyone(factory)) {}

std::string MemoryCopies::PathOf(int64_t step) const {
  return folder_ + "/" + CheckpointName(step);
}

absl::Status MemoryCopies::Begin(Control& control) {
  const auto begin = [&]() -> absl::Status {
    if (!hosts_.leads()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::vector<std::string> names,
                     ListDirectory(options_.root));
    std::error_code error;
    for (const std::string& name : names) {
      const std::string path = options_.root + "/" + name;
      if (!name.starts_with(prefix_) || path == folder_ ||
          !name.ends_with("-" + options_.host)) {
        continue;
      }
      fs::remove_all(path, error);
      RETURN_IF_ERROR(ErrorOf("remove", path, error));
    }
    RETURN_IF_ERROR(MakeDirectories(folder_));
    fs::permissions(folder_, fs::perms::owner_all, error);
    return ErrorOf("close to others", folder_, error);
  };
  return control.Agree(WithContext(begin(), "checkpoint.memory_folder"),
                       "folders of memory copies");
}

absl::StatusOr<int64_t> MemoryCopies::Reserve(Control& control,
                                              int64_t state_bytes) {
  std::vector<int64_t> bytes(control.size());
  const std::vector<std::string> texts =
      control.AllGather(fmt::to_string(state_bytes), "sizes of memory copies");
  for (int rank = 0; rank < control.size(); ++rank) {
    CHECK(absl::SimpleAtoi(texts[rank], &bytes[rank])) << texts[rank];
  }
  int64_t own = 0, of_host = 0;
  for (int rank = 0; rank < control.size(); ++rank) {
    const std::optional<int> peer = hosts_.PeerOf(rank);
    for (const int keeper : {rank, peer.value_or(-1)}) {
      if (keeper < 0) continue;
      if (keeper == hosts_.rank()) own += 2 * bytes[rank];
      if (hosts_.HostOf(keeper) == hosts_.own_host())
        of_host += 2 * bytes[rank];
    }
  }
  absl::Status status;
  if (hosts_.leads()) {
    std::error_code error;
    int64_t room =
        static_cast<int64_t>(fs::space(options_.root, error).available);
    // Copies that are there give way to new ones.
    for (fs::recursive_directory_iterator entry(folder_, error), end;
         !error && entry != end; entry.increment(error)) {
      if (entry->is_regular_file(error)) {
        room += static_cast<int64_t>(entry->file_size(error));
      }
    }
    if (error) {
      status = ErrorOf("see its room", options_.root, error);
    } else if (room < of_host) {
      status = ResourceExhausted(
          "checkpoint.memory_every: found {} free in {} on {}, expected the {} "
          "of two copies; a larger one (as by docker's --shm-size), another "
          "checkpoint.memory_folder, or 0",
          BytesText(room), options_.root, options_.host, BytesText(of_host));
    }
  }
  RETURN_IF_ERROR(control.Agree(status, "room for memory copies"));
  return own;
}

std::string MemoryCopies::OfferOf(int64_t step) const {
  const std::string path = PathOf(step);
  const absl::StatusOr<Manifest> manifest = ReadManifest(path);
  const absl::Status whole =
      manifest.ok() ? VerifyChecksums(path) : manifest.status();
  if (!whole.ok()) {
    LOG(ERROR) << "a DAMAGED COPY in memory is passed over: "
               << MessageOf(whole);
    return "";
  }
  Json names = Json::array();
  for (const auto& [name, file] : manifest->files) names.push_back(name);
  return Json{{"consumed_samples", manifest->consumed_samples},
              {"metadata", manifest->metadata},
              {"files", std::move(names)}}
      .dump();
}

absl::StatusOr<std::optional<MemoryCopy>> MemoryCopies::FindNewest(
    Control& control, int64_t at_least) {
  // What this host has by its manifests, then what all have.
  std::set<Candidate> own, candidates;
  Json list = Json::array();
  if (hosts_.leads()) {
    const auto steps = CheckpointSteps(folder_);
    for (const int64_t step : steps.value_or(std::vector<int64_t>())) {
      const absl::StatusOr<Manifest> manifest = ReadManifest(PathOf(step));
      if (!manifest.ok() || !manifest->metadata.contains(kSetKey)) continue;
      const std::string set = HashOf(manifest->metadata.at(kSetKey));
      own.insert({step, set});
      list.push_back({step, set});
    }
  }
  for (const std::string& text :
       control.AllGather(list.dump(), "memory copies")) {
    for (const Json& entry : Json::parse(text)) {
      candidates.insert({.step = entry[0], .set = entry[1]});
    }
  }
  for (auto next = candidates.rbegin();
       next != candidates.rend() && next->step >= at_least; ++next) {
    const std::vector<std::string> offers = control.AllGather(
        own.contains(*next) ? OfferOf(next->step) : "", "a memory copy");
    MemoryCopy copy{.step = next->step};
    copy.here.resize(hosts_.hosts());
    std::optional<CheckpointFiles> files;
    for (int rank = 0; rank < control.size(); ++rank) {
      if (offers[rank].empty()) continue;
      const Json offer = Json::parse(offers[rank]);
      copy.consumed_samples = offer["consumed_samples"];
      copy.metadata = offer["metadata"];
      copy.here[hosts_.HostOf(rank)] = offer["files"];
      files = ParseSet(copy.metadata.at(kSetKey));
    }
    if (!files.has_value()) continue;
    copy.files = *std::move(files);
    const bool whole = std::all_of(
        copy.files.begin(), copy.files.end(), [&](const auto& file) {
          return std::any_of(
              copy.here.begin(), copy.here.end(),
              [&](const auto& names) { return names.contains(file.first); });
        });
    if (whole) return copy;
    if (control.rank() == 0) {
      LOG(WARNING) << "of the memory copy of step " << copy.step
                   << " some files are on no host any more";
    }
  }
  return std::nullopt;
}

absl::Status MemoryCopies::Bring(Control& control, MemoryCopy& copy,
                                 const std::set<std::string>& needed) {
  std::vector<std::set<std::string>> missing(hosts_.hosts());
  const std::vector<std::string> lists =
      control.AllGather(Json(needed).dump(), "needed files");
  for (int rank = 0; rank < control.size(); ++rank) {
    const int host = hosts_.HostOf(rank);
    for (const std::string name : Json::parse(lists[rank])) {
      if (!copy.here[host].contains(name)) missing[host].insert(name);
    }
  }
  const int own = hosts_.own_host();
  const std::string partial =
      CheckpointWriter::PartialFolder(folder_, copy.step);
  std::vector<ExchangedFile> sent, received;
  for (int host = 0; host < hosts_.hosts(); ++host) {
    size_t place = 0;
    for (const std::string& name : missing[host]) {
      int from = host;
      do {
        from = (from + 1) % hosts_.hosts();
        CHECK_NE(from, host) << name << " is on no host";
      } while (!copy.here[from].contains(name));
      // Ranks of both hosts take turns.
      const auto rank_on = [&](int of) {
        const std::vector<int>& ranks = hosts_.RanksOn(of);
        return ranks[place % ranks.size()];
      };
      const CheckpointFile& file = copy.files.at(name);
      if (rank_on(from) == hosts_.rank()) {
        sent.push_back({rank_on(host), PathOf(copy.step) + "/" + name, file});
      }
      if (rank_on(host) == hosts_.rank()) {
        received.push_back({rank_on(from), partial + "/" + name, file});
      }
      ++place;
    }
  }
  // A host without any has the manifest at least.
  const bool changes =
      hosts_.leads() && (!missing[own].empty() || copy.here[own].empty());
  std::unique_ptr<CheckpointWriter> writer;
  absl::Status status;
  if (changes) {
    auto created = CheckpointWriter::Create(folder_, copy.step);
    status = created.status();
    if (created.ok()) writer = *std::move(created);
  }
  RETURN_IF_ERROR(control.Agree(status, "bringing a memory copy"));
  RETURN_IF_ERROR(control.Agree(ExchangeFiles(*messages_, sent, received),
                                "bringing a memory copy"));
  const auto commit = [&]() -> absl::Status {
    for (const std::string& name : copy.here[own]) {
      std::error_code error;
      fs::create_hard_link(PathOf(copy.step) + "/" + name, writer->PathOf(name),
                           error);
      RETURN_IF_ERROR(ErrorOf("link", name, error));
    }
    for (const auto& [name, file] : copy.files) {
      if (copy.here[own].contains(name) || missing[own].contains(name)) {
        writer->Add(name, file);
      }
    }
    return writer->Commit(copy.metadata, copy.consumed_samples);
  };
  if (changes) status = commit();
  RETURN_IF_ERROR(control.Agree(status, "bringing a memory copy"));
  for (int host = 0; host < hosts_.hosts(); ++host) {
    copy.here[host].merge(missing[host]);
  }
  return absl::OkStatus();
}

absl::Status MemoryCopies::DropAfter(Control& control, int64_t step) {
  absl::Status status;
  if (hosts_.leads()) status = RemoveLaterCheckpoints(folder_, step);
  return control.Agree(status, "dropping memory copies");
}

void MemoryCopies::Remove() {
  if (!hosts_.leads()) return;
  std::error_code error;
  fs::remove_all(folder_, error);
  if (error) {
    LOG(WARNING) << folder_ << ": cannot remove: " << error.message();
  }
}

absl::Status MemoryCopies::SendToPeers(
    int64_t step, const std::vector<CheckpointFiles>& by_rank) {
  const std::string partial =
      CheckpointWriter::PartialFolder(folder_, step) + "/";
  std::vector<ExchangedFile> sent, received;
  for (int rank = 0; rank < messages_->size(); ++rank) {
    const std::optional<int> peer = hosts_.PeerOf(rank);
    if (!peer.has_value()) continue;
    for (const auto& [name, file] : by_rank[rank]) {
      if (rank == hosts_.rank()) sent.push_back({*peer, partial + name, file});
      if (*peer == hosts_.rank()) {
        received.push_back({rank, partial + name, file});
      }
    }
  }
  return ExchangeFiles(*messages_, sent, received);
}

CheckpointFiles MemoryCopies::FilesHere(
    const std::vector<CheckpointFiles>& by_rank) const {
  CheckpointFiles here;
  for (int rank = 0; rank < static_cast<int>(by_rank.size()); ++rank) {
    const int peer = hosts_.PeerOf(rank).value_or(rank);
    if (hosts_.HostOf(rank) != hosts_.own_host() &&
        hosts_.HostOf(peer) != hosts_.own_host()) {
      continue;
    }
    here.insert(by_rank[rank].begin(), by_rank[rank].end());
  }
  return here;
}

}  // namespace trireme
