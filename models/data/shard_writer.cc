#include "models/data/shard_writer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>

#include "fmt/format.h"
#include "models/data/sample_files.h"
#include "models/data/text_tokens.h"
#include "models/image/encode.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBlock = 512;
// A shard is written from memory; it ends early at this size.
constexpr int64_t kMaxShardBytes = int64_t{1} << 30;
constexpr int64_t kNamed = 5;
constexpr int64_t kTogetherPerThread = 32;

// The header of a regular file in the ustar format (POSIX.1-1988), numbers in
// octal. Owner, time and permissions are constants.
std::array<char, kBlock> Header(const std::string& name, uint64_t size) {
  std::array<char, kBlock> header{};
  const auto put = [&header](size_t offset, const std::string& text) {
    std::memcpy(header.data() + offset, text.data(), text.size());
  };
  put(0, name);
  put(100, "0000644");                     // permissions
  put(108, "0000000");                     // owner
  put(116, "0000000");                     // group
  put(124, fmt::format("{:011o}", size));  // bytes
  put(136, "00000000000");                 // time
  put(148, "        ");                    // checksum, blank while summed
  put(156, "0");                           // a regular file
  put(257, std::string("ustar\00000", 8));
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  put(148, fmt::format("{:06o}", sum));
  header[154] = '\0';
  return header;
}

absl::Status CheckBytes(std::string_view what, const std::string& content,
                        int64_t most) {
  const auto bytes = static_cast<int64_t>(content.size());
  if (bytes <= most) return absl::OkStatus();
  return ResourceExhausted("{} of {} bytes, expected at most {}", what, bytes,
                           most);
}

using EncodedSamples = std::vector<absl::StatusOr<EncodedSample>>;

EncodedSamples ReadAndEncode(const Dataset& dataset, int64_t first,
                             int64_t count, int threads) {
  EncodedSamples encoded(count);
  std::atomic<int64_t> next = 0;
  const auto work = [&] {
    for (int64_t i = next++; i < count; i = next++) {
      const absl::StatusOr<Sample> sample = dataset.Read(first + i);
      encoded[i] = sample.ok() ? EncodeSample(*sample) : sample.status();
    }
  };
  std::vector<std::thread> helpers;
  for (int i = 1; i < threads; ++i) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  return encoded;
}

}  // namespace

void TarWriter::Add(const std::string& name, const std::string& content) {
  CHECK(!name.empty() && name.size() <= 100) << name;
  CHECK_LT(content.size(), uint64_t{1} << 33);
  const std::array<char, kBlock> header = Header(name, content.size());
  bytes_.append(header.data(), header.size());
  bytes_ += content;
  bytes_.append((kBlock - content.size() % kBlock) % kBlock, '\0');
}

std::string TarWriter::Take() {
  std::string bytes;
  bytes.swap(bytes_);
  return bytes;
}

std::string TarWriter::Finish() {
  bytes_.append(2 * kBlock, '\0');
  return Take();
}

absl::StatusOr<ShardWriter> ShardWriter::Create(
    const ShardWriterOptions& options) {
  if (options.samples_per_shard < 1) {
    return InvalidArgument("samples per shard: found {}, expected at least 1",
                           options.samples_per_shard);
  }
  std::error_code error;
  fs::create_directories(options.folder, error);
  if (error) {
    return FailedPrecondition("{}: cannot make the folder: {}", options.folder,
                              error.message());
  }
  fs::directory_iterator entry(options.folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    // Left-over shards would be read as part of the new set.
    if (entry->path().extension() == ".tar") {
      return FailedPrecondition(
          "{}: there already; expected a folder without shards",
          entry->path().native());
    }
  }
  if (error) {
    return FailedPrecondition("{}: {}", options.folder, error.message());
  }
  return ShardWriter(options);
}

absl::StatusOr<EncodedSample> EncodeSample(const Sample& sample) {
  ASSIGN_OR_RETURN(EncodedSample encoded, EncodeConditions(sample));
  absl::StatusOr<std::string> picture = EncodePng(sample.image);
  if (!picture.ok()) return WithContext(picture.status(), sample.key);
  encoded.picture = *std::move(picture);
  const absl::Status fits =
      CheckBytes("picture", encoded.picture, kMaxImageBytes);
  if (!fits.ok()) return WithContext(fits, sample.key);
  return encoded;
}

absl::StatusOr<EncodedSample> EncodeConditions(const Sample& sample) {
  EncodedSample encoded;
  encoded.class_id = sample.class_id;
  encoded.caption = sample.caption;
  if (sample.text_count > 0) encoded.tokens = SerializeTextTokens(sample);
  if (!sample.text_pooled.empty()) encoded.pooled = SerializePooledText(sample);
  if (sample.text_layer_count > 0) encoded.layers = SerializeTextLayers(sample);
  absl::Status fits = CheckBytes("caption", encoded.caption, kMaxCaptionBytes);
  fits.Update(CheckBytes("text states", encoded.tokens, kMaxTokensBytes));
  fits.Update(CheckBytes("text layers", encoded.layers, kMaxTokensBytes));
  if (!fits.ok()) return WithContext(fits, sample.key);
  return encoded;
}

void AddMembers(const std::string& stem, const EncodedSample& sample,
                TarWriter& tar) {
  const auto add = [&](const char* ending, const std::string& content) {
    if (!content.empty()) tar.Add(stem + ending, content);
  };
  add(".png", sample.picture);
  add(".latents", sample.latents);
  if (sample.class_id >= 0) {
    tar.Add(stem + ".cls", fmt::format("{}\n", sample.class_id));
  }
  add(".txt", sample.caption);
  add(".tokens", sample.tokens);
  add(".pooled", sample.pooled);
  add(".layers", sample.layers);
}

absl::Status ShardWriter::Add(const EncodedSample& sample) {
  // Numbers, not the samples' names: those may repeat or hold anything.
  AddMembers(fmt::format("{:09}", samples_), sample, tar_);
  ++samples_;
  ++in_shard_;
  if (in_shard_ == options_.samples_per_shard ||
      tar_.size_bytes() >= kMaxShardBytes) {
    return WriteShard();
  }
  return absl::OkStatus();
}

absl::Status ShardWriter::WriteShard() {
  const fs::path path =
      fs::path(options_.folder) / fmt::format("shard-{:06}.tar", shards_);
  RETURN_IF_ERROR(WriteFileAtomically(path, tar_.Finish()));
  ++shards_;
  in_shard_ = 0;
  return absl::OkStatus();
}

absl::Status WriteClassNames(const std::string& folder,
                             const std::vector<std::string>& class_names) {
  if (class_names.empty()) return absl::OkStatus();
  std::string lines;
  for (const std::string& name : class_names) {
    if (name.find_first_of("\r\n") != std::string::npos) {
      return InvalidArgument("class name \"{}\" holds a line break", name);
    }
    lines += name + "\n";
  }
  return WriteFileAtomically(fs::path(folder) / "classes.txt", lines);
}

std::vector<std::string> ClassNamesIn(const Dataset& dataset) {
  std::vector<std::string> class_names;
  for (int64_t i = 0; i < dataset.num_classes(); ++i) {
    class_names.push_back(dataset.class_name(i));
  }
  return class_names;
}

absl::Status ShardWriter::Finish(const std::vector<std::string>& class_names) {
  if (in_shard_ > 0) RETURN_IF_ERROR(WriteShard());
  return WriteClassNames(options_.folder, class_names);
}

absl::StatusOr<ShardSummary> WriteShards(
    const Dataset& dataset, const ShardWriterOptions& options,
    const std::function<void(int64_t)>& progress) {
  ASSIGN_OR_RETURN(ShardWriter writer, ShardWriter::Create(options));
  ShardSummary summary;
  absl::Status first_error;
  const int threads =
      options.threads > 0
          ? options.threads
          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  // Encoded together, then written in their order: this bounds the memory.
  const int64_t together = int64_t{threads} * kTogetherPerThread;
  for (int64_t first = 0; first < dataset.size(); first += together) {
    const EncodedSamples encoded = ReadAndEncode(
        dataset, first, std::min(together, dataset.size() - first), threads);
    for (size_t i = 0; i < encoded.size(); ++i) {
      if (encoded[i].ok()) {
        RETURN_IF_ERROR(writer.Add(*encoded[i]));
      } else {
        first_error.Update(encoded[i].status());
        if (++summary.skipped <= kNamed) {
          LOG(WARNING) << "skipping an unreadable sample: "
                       << MessageOf(encoded[i].status());
        }
      }
      if (progress) progress(first + static_cast<int64_t>(i) + 1);
    }
  }
  if (writer.samples() == 0) {
    return NotFound("none of the {} samples can be read; the first error: {}",
                    dataset.size(), MessageOf(first_error));
  }
  RETURN_IF_ERROR(writer.Finish(ClassNamesIn(dataset)));
  summary.samples = writer.samples();
  summary.shards = writer.shards();
  return summary;
}

}  // namespace trireme
