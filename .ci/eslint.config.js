// Rules for the JavaScript in feedback_ui/assets. Types are checked by tsc (tsconfig.json).

import js from "@eslint/js";
import globals from "globals";

const CLASSIC_SCRIPTS = ["**/assets/start.js", "**/assets/page.js", "**/assets/row_buttons.js", "**/assets/copy_buttons.js", "**/assets/gold_order.js"];

export default [
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2024, sourceType: "module", globals: globals.browser },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "array-callback-return": "error",
      "no-implicit-globals": "error",
      "no-promise-executor-return": "error",
      "no-self-compare": "error",
      "no-shadow": "error",
      "no-unmodified-loop-condition": "error",
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "curly": ["error", "multi-line"],
      "eqeqeq": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-var": "error",
      "prefer-const": "error",
      "object-shorthand": "error",
      "prefer-template": "error",
    },
  },
  { files: CLASSIC_SCRIPTS, languageOptions: { sourceType: "script" } },
  { files: ["**/assets/start.js"], languageOptions: { globals: { element: "readonly", server: "readonly" } } },
  { files: ["**/assets/copy_buttons.js"], languageOptions: { globals: { element: "readonly" } } },
  { files: ["**/assets/row_buttons.js"], languageOptions: { globals: { element: "readonly", trigger: "readonly" } } },
  {
    // The body of a function, so that what it declares is no global.
    files: ["**/assets/gold_order.js"],
    languageOptions: { globals: { element: "readonly", trigger: "readonly" }, parserOptions: { ecmaFeatures: { globalReturn: true } } },
  },
];
