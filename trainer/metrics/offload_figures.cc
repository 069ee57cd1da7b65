#include "trainer/metrics/offload_figures.h"

#include <algorithm>

#include "fmt/format.h"

namespace trireme {
namespace {

using Figures = OffloadFigures;

constexpr std::array<double Figures::*, Figures::kNumbers> kFields = {
    &Figures::steps,          &Figures::step_s,
    &Figures::compute_s,      &Figures::waited_in_s,
    &Figures::waited_out_s,   &Figures::waited_updates_s,
    &Figures::waited_drive_s, &Figures::in_s,
    &Figures::in_bytes,       &Figures::out_s,
    &Figures::out_bytes,      &Figures::update_s,
    &Figures::update_bytes,   &Figures::read_s,
    &Figures::read_bytes,     &Figures::write_s,
    &Figures::written_bytes};

// Waits of less than this share of a step are not worth a change.
constexpr double kWorthwhile = 0.05;
// Copies take longer than what they could hide behind where they are at work
// for this share of it.
constexpr double kBusy = 0.9;

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }

double Gigabytes(double bytes, double seconds) {
  return Ratio(bytes, seconds) / 1e9;
}

// With which several microbatches' copies are made once.
bool MayBeUnitMajor(const Plan& plan) {
  return plan.microbatches() > 1 && plan.grid().pp() <= 1 &&
         plan.schedule() != Plan::UNIT_MAJOR;
}

struct Finding {
  std::string cause;   // the same while the same is to be done
  std::string advice;  // with the figures that it comes from
};

Finding OfCopiesIn(const Figures& figures, const Plan& plan) {
  const double share = Ratio(figures.waited_in_s, figures.step_s);
  const double per_compute = Ratio(figures.in_s, figures.compute_s);
  const uint32_t places = plan.offload().resident_units();
  if (places < 2) {
    return {"places",
            fmt::format("copies to the device take {:.0f} % of the step: with "
                        "offload.resident_units: {} they run while a block "
                        "computes",
                        100 * share, places + 1)};
  }
  if (per_compute < kBusy) {
    return {"more places",
            fmt::format("copies to the device are waited for {:.0f} % of the "
                        "step, though the link rests: a larger "
                        "offload.resident_units than {} lets them come earlier",
                        100 * share, places)};
  }
  const char* const how =
      MayBeUnitMajor(plan)
          ? "schedule: UNIT_MAJOR, or fewer and larger microbatches"
      : plan.schedule() == Plan::UNIT_MAJOR ? "a larger global_batch"
      : plan.microbatches() > 1             ? "fewer and larger microbatches"
                                : "a larger microbatch_size or resolution";
  return {"tokens",
          fmt::format("copies to the device take {:.2g} times as long as what "
                      "is computed ({:.0f} % of the step is waiting for them): "
                      "they hide behind {:.2g} times the tokens a microbatch "
                      "({}), and fewer are made with a larger "
                      "offload.resident_units than {}",
                      per_compute, 100 * share, per_compute, how, places)};
}

Finding OfCopiesOut(const Figures& figures, const Plan& plan) {
  const double share = Ratio(figures.waited_out_s, figures.step_s);
  return {
      "gradients",
      plan.microbatches() > 1 && plan.schedule() != Plan::UNIT_MAJOR
          ? fmt::format(
                "gradients on their way to the host are waited for "
                "{:.0f} % of the step: they leave after each of "
                "the {} microbatches; fewer and larger ones{}",
                100 * share, plan.microbatches(),
                MayBeUnitMajor(plan) ? ", or schedule: UNIT_MAJOR: once" : "")
          : fmt::format("gradients on their way to the host are waited for "
                        "{:.0f} % of the step: more tokens a microbatch "
                        "hide them",
                        100 * share)};
}

Finding OfUpdates(const Figures& figures, const Plan& plan) {
  return {
      "updates",
      fmt::format("updates on the host are waited for {:.0f} % of the step, at "
                  "{:.3g} GB/s of its memory: they hide behind the forward of "
                  "a larger microbatch, and a larger global_batch has fewer "
                  "of them; a larger offload.device_blocks than {} leaves "
                  "fewer to it, where the device has room; more threads make "
                  "them faster, if that is below what the memory does",
                  100 * Ratio(figures.waited_updates_s, figures.step_s),
                  Gigabytes(figures.update_bytes, figures.update_s),
                  plan.offload().device_blocks())};
}

Finding OfDrive(const Figures& figures, const Plan& plan) {
  const uint32_t host_units = plan.offload().nvme().host_units();
  return {
      "drive",
      fmt::format(
          "{} wait for the drive {:.0f} % of the step (it reads {:.3g} and "
          "writes {:.3g} GB/s): a larger global_batch has fewer of them, and "
          "{}, if that holds them",
          host_units > 0 ? "copies and updates" : "updates",
          100 * Ratio(figures.waited_drive_s, figures.step_s),
          Gigabytes(figures.read_bytes, figures.read_s),
          Gigabytes(figures.written_bytes, figures.write_s),
          host_units > 0
              ? fmt::format("with a larger offload.nvme.host_units than {} "
                            "more weights lie in the host's memory",
                            host_units)
              : "without offload.nvme states lie in the host's memory")};
}

Finding FindingOf(const Figures& figures, const Plan& plan) {
  const double most =
      std::max({figures.waited_in_s, figures.waited_out_s,
                figures.waited_updates_s, figures.waited_drive_s});
  if (most < kWorthwhile * figures.step_s) {
    return {"nothing",
            "copies, updates and drive hide behind what is computed"};
  }
  if (most == figures.waited_in_s) return OfCopiesIn(figures, plan);
  if (most == figures.waited_out_s) return OfCopiesOut(figures, plan);
  if (most == figures.waited_updates_s) return OfUpdates(figures, plan);
  return OfDrive(figures, plan);
}

}  // namespace

std::array<double, OffloadFigures::kNumbers> OffloadFigures::ToNumbers() const {
  std::array<double, kNumbers> numbers{};
  for (int i = 0; i < kNumbers; ++i) numbers[i] = this->*kFields[i];
  return numbers;
}

OffloadFigures OffloadFigures::FromNumbers(std::span<const double> numbers) {
  OffloadFigures figures;
  for (int i = 0; i < kNumbers; ++i) figures.*kFields[i] = numbers[i];
  return figures;
}

OffloadFigures& OffloadFigures::operator+=(const OffloadFigures& other) {
  for (const auto field : kFields) this->*field += other.*field;
  return *this;
}

OffloadFigures operator-(const OffloadFigures& a, const OffloadFigures& b) {
  OffloadFigures difference;
  for (const auto field : kFields) difference.*field = a.*field - b.*field;
  return difference;
}

nlohmann::ordered_json ToJson(const OffloadFigures& figures) {
  const auto mean = [&](double seconds) {
    return Ratio(seconds, figures.steps);
  };
  nlohmann::ordered_json json = {{"waited_s",
                                  {{"copies_in", mean(figures.waited_in_s)},
                                   {"copies_out", mean(figures.waited_out_s)},
                                   {"updates", mean(figures.waited_updates_s)},
                                   {"drive", mean(figures.waited_drive_s)}}}};
  const auto rate = [&](const char* name, double bytes, double seconds) {
    if (bytes > 0 && seconds > 0) json[name] = bytes / seconds;
  };
  rate("link_in_bytes_per_s", figures.in_bytes, figures.in_s);
  json["link_in_use"] = Ratio(figures.in_s, figures.step_s);
  rate("link_out_bytes_per_s", figures.out_bytes, figures.out_s);
  json["link_out_use"] = Ratio(figures.out_s, figures.step_s);
  rate("update_bytes_per_s", figures.update_bytes, figures.update_s);
  rate("drive_read_bytes_per_s", figures.read_bytes, figures.read_s);
  rate("drive_write_bytes_per_s", figures.written_bytes, figures.write_s);
  return json;
}

std::vector<std::pair<std::string, double>> ToScalars(
    const OffloadFigures& figures) {
  std::vector<std::pair<std::string, double>> scalars;
  const nlohmann::ordered_json json = ToJson(figures);
  for (const auto& [name, value] : json.items()) {
    if (value.is_number()) {
      scalars.emplace_back("offload/" + name, value.get<double>());
      continue;
    }
    for (const auto& [cause, seconds] : value.items()) {
      scalars.emplace_back("offload/" + name + "/" + cause,
                           seconds.get<double>());
    }
  }
  return scalars;
}

std::string OffloadLine(const OffloadFigures& figures) {
  const auto mean = [&](double seconds) {
    return Ratio(seconds, figures.steps);
  };
  std::string text = fmt::format(
      "waited in {:.2g} out {:.2g} updates {:.2g} drive {:.2g} s; link in "
      "{:.3g} GB/s ({:.0f} %)",
      mean(figures.waited_in_s), mean(figures.waited_out_s),
      mean(figures.waited_updates_s), mean(figures.waited_drive_s),
      Gigabytes(figures.in_bytes, figures.in_s),
      100 * Ratio(figures.in_s, figures.step_s));
  if (figures.out_bytes > 0) {
    text += fmt::format(" out {:.3g} GB/s ({:.0f} %)",
                        Gigabytes(figures.out_bytes, figures.out_s),
                        100 * Ratio(figures.out_s, figures.step_s));
  }
  if (figures.update_bytes > 0) {
    text += fmt::format("; Adam {:.3g} GB/s",
                        Gigabytes(figures.update_bytes, figures.update_s));
  }
  if (figures.read_bytes + figures.written_bytes > 0) {
    text +=
        fmt::format("; drive reads {:.0f} writes {:.0f} MB/s",
                    1e3 * Gigabytes(figures.read_bytes, figures.read_s),
                    1e3 * Gigabytes(figures.written_bytes, figures.write_s));
  }
  return text;
}

std::string Suggestion(const OffloadFigures& figures, const Plan& plan) {
  return FindingOf(figures, plan).advice;
}

std::optional<std::string> OffloadAdvice::AfterStep(
    int64_t step, const OffloadFigures& figures) {
  since_ += figures;
  if (step % every_ != 0) return std::nullopt;
  const Finding finding = FindingOf(std::exchange(since_, {}), plan_);
  if (finding.cause == std::exchange(last_, finding.cause)) return std::nullopt;
  return "offload  " + finding.advice;
}

}  // namespace trireme
