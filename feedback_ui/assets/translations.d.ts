/** The texts of each language by key: a module that the server makes of the locale files (`feedback_ui/shared/scripts.py`). */
declare const translations: Record<string, Record<string, string>>;
export default translations;
