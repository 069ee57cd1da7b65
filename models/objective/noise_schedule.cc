#include "models/objective/noise_schedule.h"

#include <algorithm>
#include <numbers>

namespace trireme {
namespace {

// No step takes more of the signal.
constexpr double kMostBeta = 0.999;

// ᾱ at a time of [0, 1], to a factor.
double SquaredCosine(double time) {
  const double cosine = std::cos((time + 0.008) / 1.008 * std::numbers::pi / 2);
  return cosine * cosine;
}

double BetaOf(Diffusion::Schedule schedule, int64_t t, int64_t steps,
              double beta_start, double beta_end) {
  const double all = static_cast<double>(steps);
  const double at = static_cast<double>(t);
  if (schedule == Diffusion::COSINE) {
    return std::min(1 - SquaredCosine((at + 1) / all) / SquaredCosine(at / all),
                    kMostBeta);
  }
  const double share = steps > 1 ? at / (all - 1) : 0;
  if (schedule == Diffusion::LINEAR) {
    return beta_start + (beta_end - beta_start) * share;
  }
  const double from = std::sqrt(beta_start);
  const double root = from + (std::sqrt(beta_end) - from) * share;
  return root * root;
}

}  // namespace

LogVarianceRange LogVariancesOf(double alpha, double next_alpha) {
  const double beta = 1 - alpha / next_alpha;
  return {.least = std::log(beta * (1 - next_alpha) / (1 - alpha)),
          .most = std::log(beta)};
}

std::vector<double> CumulativeAlphas(Diffusion::Schedule schedule,
                                     int64_t steps, double beta_start,
                                     double beta_end) {
  std::vector<double> alphas;
  double left = 1;
  for (int64_t t = 0; t < steps; ++t) {
    left *= 1 - BetaOf(schedule, t, steps, beta_start, beta_end);
    alphas.push_back(left);
  }
  return alphas;
}

}  // namespace trireme
