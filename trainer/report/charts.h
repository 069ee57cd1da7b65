// Charts of a run's report: parts of an HTML page, as SVG that takes its
// colours from the page's variables (--text, --grid, --c0 to --c7) and its
// width from where it stands.

#ifndef TRIREME_TRAINER_REPORT_CHARTS_H_
#define TRIREME_TRAINER_REPORT_CHARTS_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace trireme {

// With &, <, > and quotes as HTML wants them.
std::string EscapeHtml(std::string_view text);

struct Curve {
  std::string name;
  // Finite ones are drawn, in order of x.
  std::vector<std::pair<double, double>> points;
};

// Curves over one another, with axes. Long ones are drawn by the lowest and
// highest value of each column. `log`: the y axis is logarithmic where all
// values are above 0.
std::string CurveChart(const std::string& title,
                       const std::vector<Curve>& curves, bool log = false);

// Values that make up a whole: one bar, and a table with their shares.
std::string ShareChart(const std::string& title, const std::string& unit,
                       std::vector<std::pair<std::string, double>> parts);

// What ranks did when.
struct LaneEvent {
  std::string name;
  std::string kind;  // events of a kind have a colour
  double begin = 0;  // seconds
  double end = 0;
};
struct Lane {
  std::string name;
  std::vector<LaneEvent> events;
};
std::string LaneChart(const std::string& title, const std::vector<Lane>& lanes);

}  // namespace trireme

#endif  // TRIREME_TRAINER_REPORT_CHARTS_H_
