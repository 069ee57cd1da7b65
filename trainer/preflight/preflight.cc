#include "trainer/preflight/preflight.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <system_error>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include "runtime/checkpoint/checksum.h"
#include "runtime/comm/control.h"
#include "runtime/comm/patience.h"
#include "runtime/core/log.h"
#include "runtime/core/median.h"
#include "runtime/core/processes.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/cuda/gpus.h"
#include "trainer/config/local_path.h"
#include "trainer/config/textproto.h"
#include "trainer/job/batches.h"
#include "trainer/job/memory_limit.h"
#include "trainer/preflight/cluster_devices.h"

namespace trireme {
namespace {

using Json = nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr int64_t kMessageBytes = 1 << 20;
constexpr int kRounds = 3;
// Between clocks: files' times and logs are compared by people.
constexpr double kMostClockOffset = 2;
// Of the median link's rate.
constexpr double kSlowLink = 0.25;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string HashOf(std::string_view bytes) {
  Checksum checksum;
  checksum.Update(bytes);
  return checksum.Result().xxh64;
}

std::string ProgramHash() {
  const auto close_file = [](FILE* file) { fclose(file); };
  const std::unique_ptr<FILE, decltype(close_file)> file(
      fopen("/proc/self/exe", "rbe"), close_file);
  if (file == nullptr) return "unreadable";
  Checksum checksum;
  std::vector<char> buffer(1 << 20);
  size_t count = 0;
  while ((count = fread(buffer.data(), 1, buffer.size(), file.get())) > 0) {
    checksum.Update({buffer.data(), count});
  }
  return checksum.Result().xxh64;
}

// What this rank computes with. Of a processor: what the host has, for all of
// its ranks.
RankDevice DeviceHere(const ComputeDevice& device) {
  RankDevice here = {.host = HostName()};
  if (device.kind() == DeviceKind::kCpu) {
    here.memory_bytes = HostMemoryLimit(/*local_ranks=*/1);
    return here;
  }
  const absl::StatusOr<std::vector<CudaGpu>> gpus = FindCudaGpus();
  CHECK(gpus.ok()) << gpus.status();
  const CudaGpu& gpu = (*gpus)[device.gpu()];
  here.product = gpu.name;
  here.count = static_cast<int64_t>(gpus->size());
  here.memory_bytes = gpu.memory_bytes;
  return here;
}

// As all ranks told.
std::vector<RankDevice> DevicesOf(const std::vector<Json>& facts) {
  std::map<std::string, int64_t> ranks_of;
  for (const Json& of : facts) ++ranks_of[of.value("host", std::string())];
  std::vector<RankDevice> devices;
  for (const Json& of : facts) {
    RankDevice device = {.host = of.value("host", std::string()),
                         .product = of.value("product", std::string()),
                         .count = of.value("devices", int64_t{1}),
                         .memory_bytes = of.value("memory", int64_t{0})};
    if (device.product.empty()) {
      device.count = ranks_of[device.host];
      device.memory_bytes /= device.count;
    }
    devices.push_back(std::move(device));
  }
  return devices;
}

// What a rank is and has. The time is told last, behind a barrier.
Json Facts(const Job& job, const ComputeDevice& device,
           Communicator& everyone) {
  Json facts = {{"host", HostName()}, {"program", ProgramHash()}};
  const RankDevice own = DeviceHere(device);
  facts["product"] = own.product;
  facts["devices"] = own.count;
  facts["memory"] = own.memory_bytes;
  facts["job"] = HashOf(PrintTextProto(job));
  const auto dataset = OpenDataset(job.data());
  if (dataset.ok()) {
    facts["data"] = fmt::format("{} samples, {} classes", (*dataset)->size(),
                                (*dataset)->num_classes());
    facts["index"] = fmt::format("{:016x}", (*dataset)->IndexHash());
  } else {
    facts["no_data"] = MessageOf(dataset.status());
  }
  const std::string& weights = job.init().weights();
  const absl::StatusOr<std::string> here = LocalPath(weights);
  std::error_code error;
  if (!here.ok()) {
    facts["no_weights"] = MessageOf(here.status());
  } else if (!weights.empty() && !std::filesystem::exists(*here, error)) {
    facts["no_weights"] =
        fmt::format("{}: found nothing there, expected the weights", *here);
  }
  const char* const moved = std::getenv(kPathsVariable);
  facts["paths"] = moved == nullptr ? "" : moved;
  // Files are listed as fast as a host's disk is.
  AwaitAllPatiently(everyone, "data of other hosts");
  everyone.Barrier("clocks");
  facts["time"] = std::chrono::duration<double>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count();
  return facts;
}

// Where a rank's facts are not rank 0's; a host is named once for each.
void Compare(const std::vector<Json>& facts, PreflightReport& report) {
  std::map<std::string, bool> told;
  const auto tell = [&](const std::string& host, const std::string& what) {
    if (!std::exchange(told[host + what.substr(0, 8)], true)) {
      report.troubles.push_back(fmt::format("host {}: {}", host, what));
    }
  };
  const auto text = [](const Json& of, const char* key) {
    return of.value(key, std::string());
  };
  const std::string first = text(facts[0], "host");
  double widest = 0;
  for (const Json& of : facts) {
    const std::string host = text(of, "host");
    if (of["program"] != facts[0]["program"]) {
      tell(host, fmt::format("program: another one than on {}; copy the same "
                             "file to both",
                             first));
    }
    if (of["job"] != facts[0]["job"]) {
      tell(host, fmt::format("job: another one than on {}; are paths or files "
                             "different there?",
                             first));
    }
    if (of.contains("no_data")) {
      tell(host, fmt::format("data: {}", text(of, "no_data")));
    } else if (facts[0].contains("data") && of["data"] != facts[0]["data"]) {
      tell(host, fmt::format("data: found {}, expected {} as on {}; copy the "
                             "same files to both",
                             text(of, "data"), text(facts[0], "data"), first));
    } else if (of.value("index", "") != facts[0].value("index", "")) {
      tell(host, fmt::format("data: as many samples as on {}, but others, or "
                             "in another order; copy the same files to both",
                             first));
    }
    if (of.contains("no_weights")) {
      tell(host, fmt::format("init.weights: {}", text(of, "no_weights")));
    }
    const double offset =
        of["time"].get<double>() - facts[0]["time"].get<double>();
    widest = std::max(widest, std::abs(offset));
    if (std::abs(offset) > kMostClockOffset) {
      tell(host, fmt::format("clock: {:.1f} s {} that of {}; have both follow "
                             "a time server",
                             std::abs(offset),
                             offset > 0 ? "ahead of" : "behind", first));
    }
  }
  report.text += fmt::format("program {}\nclocks  within {:.3f} s\n",
                             text(facts[0], "program"), widest);
  if (facts[0].contains("data")) {
    report.text += fmt::format("data    {}\n", text(facts[0], "data"));
  }
}

// The first rank of each host, and the hosts' names.
struct Leaders {
  std::vector<int> ranks;
  std::vector<std::string> hosts;
};

Leaders LeadersOf(const std::vector<Json>& facts) {
  Leaders leaders;
  for (size_t rank = 0; rank < facts.size(); ++rank) {
    const std::string host = facts[rank].value("host", std::string());
    if (std::find(leaders.hosts.begin(), leaders.hosts.end(), host) !=
        leaders.hosts.end()) {
      continue;
    }
    leaders.hosts.push_back(host);
    leaders.ranks.push_back(static_cast<int>(rank));
  }
  return leaders;
}

// Bytes per second between each two hosts, one pair at a time, there and back;
// those of another rank are 0.
std::vector<double> MeasureLinks(const Leaders& leaders, Communicator& everyone,
                                 CpuDevice& device) {
  const int own = everyone.rank();
  const Tensor data =
      Tensor::Zeros(device, {kMessageBytes}, DType::kUint8,
                    MemoryCategory::kCommunication, "preflight");
  std::vector<double> rates;
  for (size_t a = 0; a < leaders.ranks.size(); ++a) {
    for (size_t b = a + 1; b < leaders.ranks.size(); ++b) {
      const int from = leaders.ranks[a], to = leaders.ranks[b];
      const std::string name = fmt::format("message from {} to {}",
                                           leaders.hosts[a], leaders.hosts[b]);
      double best = 0;
      for (int round = 0; round < kRounds && (own == from || own == to);
           ++round) {
        const auto start = Clock::now();
        if (own == from) {
          everyone.Send(data, to, /*tag=*/0, name).Synchronize();
          everyone.Receive(data, to, /*tag=*/0, name).Synchronize();
        } else {
          everyone.Receive(data, from, /*tag=*/0, name).Synchronize();
          everyone.Send(data, from, /*tag=*/0, name).Synchronize();
        }
        best = std::max(best, 2 * kMessageBytes / SecondsSince(start));
      }
      rates.push_back(own == from ? best : 0);
      everyone.Barrier(name);
    }
  }
  return rates;
}

void TellLinks(const Leaders& leaders, const std::vector<double>& rates,
               PreflightReport& report) {
  if (rates.empty()) return;
  const double median = Median(rates);
  size_t at = 0, slowest = 0;
  std::vector<std::string> names;
  for (size_t a = 0; a < leaders.hosts.size(); ++a) {
    for (size_t b = a + 1; b < leaders.hosts.size(); ++b, ++at) {
      names.push_back(leaders.hosts[a] + " - " + leaders.hosts[b]);
      if (rates[at] < rates[slowest]) slowest = at;
      if (rates[at] >= kSlowLink * median) continue;
      report.troubles.push_back(fmt::format(
          "link {}: {:.3g} MB/s, the median link {:.3g} MB/s; look at its "
          "cable and switch, or leave out a host",
          names.back(), rates[at] / 1e6, median / 1e6));
    }
  }
  report.text += fmt::format(
      "links   {} between {} hosts, median {:.3g} MB/s, slowest {} {:.3g} "
      "MB/s\n",
      rates.size(), leaders.hosts.size(), median / 1e6, names[slowest],
      rates[slowest] / 1e6);
}

}  // namespace

PreflightReport Preflight(const Job& job, const ComputeDevice& device,
                          const std::optional<Cluster>& cluster,
                          CommunicatorFactory& factory) {
  std::vector<int> ranks(factory.world_size());
  std::iota(ranks.begin(), ranks.end(), 0);
  const std::unique_ptr<Communicator> everyone =
      factory.Create(ranks, "preflight");
  Control control(*everyone);
  std::vector<Json> facts;
  for (const std::string& text :
       control.AllGather(Facts(job, device, *everyone)
                             .dump(-1, ' ', /*ensure_ascii=*/false,
                                   Json::error_handler_t::replace),
                         "what hosts have")) {
    facts.push_back(Json::parse(text, nullptr, /*allow_exceptions=*/false));
    CHECK(facts.back().is_object()) << text;
  }
  PreflightReport report;
  const Leaders leaders = LeadersOf(facts);
  report.text = fmt::format("hosts   {} with {} ranks\n", leaders.hosts.size(),
                            facts.size());
  std::set<std::pair<std::string, std::string>> told;
  for (const Json& of : facts) {
    const std::string host = of.value("host", std::string());
    const std::string moved = of.value("paths", std::string());
    if (moved.empty() || !told.emplace(host, moved).second) continue;
    report.text += fmt::format("paths   of {}: {}\n", host, moved);
  }
  Compare(facts, report);
  const std::vector<RankDevice> devices = DevicesOf(facts);
  report.text += fmt::format("devices {}\n", DevicesText(devices));
  if (cluster.has_value()) {
    for (std::string& difference : CompareDevices(*cluster, devices)) {
      report.troubles.push_back(std::move(difference));
    }
  }
  CpuDevice memory(std::numeric_limits<int64_t>::max());
  std::vector<double> rates = MeasureLinks(leaders, *everyone, memory);
  control.Sum(rates, "rates of links");
  TellLinks(leaders, rates, report);
  const Tensor sum = Tensor::Zeros(memory, {kMessageBytes / 4}, DType::kFloat32,
                                   MemoryCategory::kCommunication, "preflight");
  everyone->Barrier("sum");
  const auto start = Clock::now();
  everyone->AllReduce(sum, ReduceOp::kSum, "sum over all ranks").Synchronize();
  report.text += fmt::format("sum     of 1 MiB over {} ranks in {:.3g} ms\n",
                             facts.size(), 1000 * SecondsSince(start));
  return report;
}

}  // namespace trireme
